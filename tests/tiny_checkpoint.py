"""A whole checkpoint with random weights, and an adapter of it, made in a second: for inference and command line."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from neo.model.adapter import PROJECTIONS, add_adapter, save_adapter
from neo.model.config import NeoConfig
from neo.model.neo import NeoForConditionalGeneration
from neo.processing.image import NeoImageProcessor
from neo.processing.processor import NeoProcessor
from neo.processing.tokenizer import special_ids, train_tokenizer

TEXTS = [
    "What color is the circle? It is red, blue or green.",
    "Größe: 12 €",
    "どの形ですか？ 丸です。",
    "🙂🙃",
] * 3


def make_checkpoint(folder: Path, seed: int = 0, **text: int) -> Path:
    """Save a NEO of two layers in float32, with processor, in the published layout."""
    tokenizer = train_tokenizer(TEXTS, 400)
    ids = special_ids(tokenizer)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "extra_num_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "initializer_range": 0.4,  # large, so that answers depend on every token of the prompt
    }
    sizes |= text
    config = NeoConfig(
        text_config=sizes,
        vision_config={
            "hidden_size": 24,
            "llm_hidden_size": sizes["hidden_size"],
            "min_pixels": 4096,
            "max_pixels": 65536,
        },
        image_token_id=ids.image,
        image_start_token_id=ids.image_start,
        image_end_token_id=ids.image_end,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        NeoForConditionalGeneration(config).save_pretrained(folder)
    images = NeoImageProcessor.from_vision_config(config.vision_config.to_dict())
    NeoProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a NEO with random weights that does answer, nonsense though it is."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def tiny_adapter(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an adapter of the tiny checkpoint that changes what it says."""
    folder = tmp_path_factory.mktemp("adapters") / "tiny"
    model = NeoForConditionalGeneration.from_pretrained(tiny_checkpoint)
    generator = torch.Generator().manual_seed(0)
    for parameter in add_adapter(model, LoraConfig(r=2, target_modules=list(PROJECTIONS))):
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    save_adapter(model, folder)
    return folder
