"""Pictures, the tiny checkpoint loaded, and mixed prompts with what it says to them."""

import random
from pathlib import Path

import numpy as np
import pytest
from engines import MOST_TOKENS, PROMPTS
from PIL import Image
from tiny_checkpoint import tiny_adapter, tiny_checkpoint

import neo
from neo.inference.chat import ChatModel
from neo.model.neo import NeoForConditionalGeneration
from neo.processing.processor import Encoded, NeoProcessor

__all__ = ["tiny_adapter", "tiny_checkpoint"]

WORDS = ("What", "color", "is", "the", "circle", "red", "丸", "🙂")


@pytest.fixture(scope="session")
def chat_model(tiny_checkpoint: Path) -> ChatModel:
    return neo.load_model(str(tiny_checkpoint), device="cpu")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Three pictures of noise in three sizes."""
    noise = np.random.default_rng(0)
    sizes = ((96, 128), (64, 64), (128, 64))
    return [Image.fromarray(noise.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


@pytest.fixture(scope="session")
def model(tiny_checkpoint: Path) -> NeoForConditionalGeneration:
    return neo.load_model(str(tiny_checkpoint), device="cpu").model


@pytest.fixture(scope="session")
def processor(tiny_checkpoint: Path) -> NeoProcessor:
    return NeoProcessor.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="session")
def prompts(processor: NeoProcessor) -> list[Encoded]:
    """Mixed questions, with 0 to 2 of 4 pictures; some begin alike."""
    noise, draw = np.random.default_rng(0), random.Random(0)
    sizes = ((96, 128), (64, 64), (128, 64), (256, 256))
    pictures = [Image.fromarray(noise.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]
    result = []
    for _ in range(PROMPTS):
        parts = [{"type": "image", "image": draw.choice(pictures)} for _ in range(draw.choice([0, 1, 1, 2]))]
        text = " ".join(draw.choices(WORDS, k=draw.randint(1, 30)))
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
        result.append(processor.encode(messages, add_generation_prompt=True))
    return result


@pytest.fixture(scope="session")
def expected(tiny_checkpoint: Path, processor: NeoProcessor, prompts: list[Encoded]) -> list[list[int]]:
    """What transformers' generate on a network loaded by transformers says to each prompt, its end cut off."""
    answers, plain = [], NeoForConditionalGeneration.from_pretrained(tiny_checkpoint).eval()
    for prompt in prompts:
        inputs = {"input_ids": prompt.input_ids[None], "image_grid_hw": prompt.image_grid_hw}
        pixels = {"pixel_values": prompt.pixel_values} if len(prompt.image_grid_hw) else {}
        end = processor.ids.im_end
        out = plain.generate(**inputs, **pixels, max_new_tokens=MOST_TOKENS, do_sample=False, eos_token_id=[end])
        said = out[0, len(prompt.input_ids) :].tolist()
        answers.append(said[:-1] if said[-1] == end else said)
    return answers
