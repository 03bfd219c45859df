"""Other people's families, each as a tiny model of random weights saved as its makers save it."""

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers import FAMILIES, make_peer
from PIL import Image
from transformers import pipeline
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from neo.evaluation.answerer import load_answerer
from neo.evaluation.huggingface import HuggingFaceAnswerer, _FirstToken, peer_messages

PICTURE = Image.new("RGB", (32, 32), "red")
QUESTION = [
    {"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What color is it?"}]}
]
PROMPTS = {"Qwen2VL": 84, "Qwen2_5_VL": 84, "InternVL": 73, "Llava": 39, "Fuyu": 40, "Chameleon": 84, "Emu3": 62}
PROMPTS |= {"Gemma3": 38}
"""Tokens of the question: a token a letter, and those of the picture."""


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`peer(family)`: the folder of such a model, made once."""
    folder = tmp_path_factory.mktemp("peers")

    def peer(family: str) -> Path:
        return folder / family if (folder / family).exists() else make_peer(family, folder / family)

    return peer


@pytest.mark.parametrize("family", FAMILIES)
def test_families_answer(peer: Callable[[str], Path], family: str) -> None:
    answerer = load_answerer(f"hf:{peer(family)}", dtype="fp32", device="cpu", adapter=None)
    first, second = answerer.answer([QUESTION, QUESTION], 4)
    assert first.text == second.text
    assert first.prompt_tokens == PROMPTS[family]
    assert first.new_tokens == 4 or first.complete
    assert first.seconds_to_first_token is not None
    assert 0 < first.seconds_to_first_token <= first.seconds
    memory = answerer.peak_memory()
    assert memory is not None
    assert memory > 1e6


def test_the_answer_is_that_of_transformers_pipeline(peer: Callable[[str], Path]) -> None:
    answerer = load_answerer(f"hf:{peer('Llava')}")
    assert isinstance(answerer, HuggingFaceAnswerer)
    ask = pipeline("image-text-to-text", model=answerer.model, processor=answerer.processor)
    said = ask(text=QUESTION, max_new_tokens=6, return_full_text=False, generate_kwargs={"do_sample": False})
    assert answerer.answer([QUESTION], 6)[0].text == said[0]["generated_text"].strip()


def test_the_first_token_is_there_when_the_clock_is_read() -> None:
    """On CUDA the kernels may still run: the token is read first."""

    class Ids:
        shape, device, read = (1, 3), "cpu", 0.0

        def __getitem__(self, place: Any) -> "Ids":
            return self

        def item(self) -> int:
            time.sleep(0.01)
            self.read = time.monotonic()
            return 5

    ids, clock = Ids(), _FirstToken()
    clock(ids, None)  # type: ignore[arg-type]
    assert clock.at is not None
    first = clock.at
    assert 0 < ids.read <= first
    clock(ids, None)  # type: ignore[arg-type]
    assert clock.at == first


def test_conversations_keep_their_order() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Before <image> and after.", "image": PICTURE},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "And now?"},
    ]
    conversation, pictures = peer_messages(messages)
    assert [turn["role"] for turn in conversation] == ["system", "user", "assistant", "user"]
    assert [part["type"] for part in conversation[1]["content"]] == ["text", "image", "text"]
    assert conversation[3]["content"] == [{"type": "text", "text": "And now?"}]
    assert pictures == [PICTURE]


def test_line_breaks_around_pictures_are_the_templates_own() -> None:
    (turn,), _ = peer_messages([{"role": "user", "content": "<image>\nWhat?", "image": PICTURE}])
    assert [part.get("text") for part in turn["content"]] == [None, "What?"]


def test_conversations_go_through_the_template(peer: Callable[[str], Path]) -> None:
    answerer = load_answerer(f"hf:{peer('Qwen2VL')}")
    longer = [*QUESTION, {"role": "assistant", "content": "red"}, {"role": "user", "content": "And?"}]
    assert answerer.answer([longer], 2)[0].prompt_tokens == PROMPTS["Qwen2VL"] + len(
        "<|im_start|>assistant\nred<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n"
    )


@pytest.mark.parametrize("family", ["Fuyu", "Chameleon"])
def test_models_without_template_take_a_single_question(peer: Callable[[str], Path], family: str) -> None:
    answerer = load_answerer(f"hf:{peer(family)}")
    asked = [*QUESTION, {"role": "assistant", "content": "red"}, {"role": "user", "content": "And?"}]
    with pytest.raises(ValueError, match=r"^question 2: .* has no chat template and takes a single question only$"):
        answerer.answer([QUESTION, asked], 2)


def test_a_model_that_is_not_here_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^hf:nobody/nothing cannot be loaded: [^\n]+$"):
        load_answerer("hf:nobody/nothing")


def test_a_model_that_sees_nothing_is_one_sentence(peer: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(peer("Llava"), folder)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"^hf:[^\n]+ cannot be loaded: [^\n]+$"):
        load_answerer(f"hf:{folder}")


def test_options_of_a_neo_are_not_for_others() -> None:
    with pytest.raises(ValueError, match=r"quantization='int8' is for a NEO; models behind hf: take dtype, device"):
        load_answerer("hf:nobody/nothing", quantization="int8")


def test_the_page_names_the_tested_families() -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (told,) = re.findall(r"as tiny models of random weights: (.*?)\.\s", page, re.DOTALL)
    names = [re.sub(r"\W", "", name).lower() for name in re.split(r",| and ", told)]
    assert names == [family.replace("_", "").lower() for family in FAMILIES]
    assert "such as Llama 4 and LFM2-VL" in page
    for family in ("llama4", "lfm2_vl"):
        assert "pil" not in IMAGE_PROCESSOR_MAPPING_NAMES[family]


def test_dtypes_are_named_as_elsewhere() -> None:
    with pytest.raises(ValueError, match=r"dtype='int3' must be auto, fp32, bf16, fp16"):
        load_answerer("hf:nobody/nothing", dtype="int3")
