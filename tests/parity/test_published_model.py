"""The tiny published checkpoint gives what the reference implementation gave, in float32 on CPU."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from neo.model import attention
from neo.model.neo import NeoForConditionalGeneration

CASES = ("text_only", "one_image", "tall_image", "two_images", "image_first", "adjacent_images")
BACKENDS = {
    "eager": ("eager", None),
    "sdpa dense": ("sdpa", float("inf")),
    "sdpa segments": ("sdpa", 0),
    "flex": ("flex_attention", None),
}
"""Name to `attn_implementation` and what decides between sdpa's two forms."""


@pytest.fixture(params=BACKENDS)
def model(
    request: pytest.FixtureRequest, tiny: NeoForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> NeoForConditionalGeneration:
    implementation, segment_cost = BACKENDS[request.param]
    tiny.set_attn_implementation(implementation)
    if segment_cost is not None:
        monkeypatch.setattr(attention, "SEGMENT_COST", segment_cost)
    return tiny


@pytest.fixture(scope="module")
def vectors(tiny_folder: Path) -> dict[str, dict[str, Tensor]]:
    cases: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(tiny_folder / "cases.safetensors").items():
        case, field = name.split(".")
        cases.setdefault(case, {})[field] = tensor
    return cases


def inputs_of(case: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: case[name] for name in ("input_ids", "pixel_values", "image_grid_hw") if name in case}


def test_every_case_is_tested(vectors: dict[str, dict[str, Tensor]], tiny_folder: Path) -> None:
    assert sorted(vectors) == sorted(CASES) == sorted(json.loads((tiny_folder / "cases.json").read_text())["cases"])


@pytest.mark.parametrize("name", [name for name in CASES if name != "text_only"])
def test_vision_embeddings(tiny: NeoForConditionalGeneration, vectors: dict[str, dict[str, Tensor]], name: str) -> None:
    case = vectors[name]
    features = tiny.model.get_image_features(case["pixel_values"], case["image_grid_hw"])
    torch.testing.assert_close(features, case["vision_embeds"], atol=1e-5, rtol=0)  # measured: 3.1e-6


@pytest.mark.parametrize("name", CASES)
def test_positions(tiny: NeoForConditionalGeneration, vectors: dict[str, dict[str, Tensor]], name: str) -> None:
    case = vectors[name]
    positions = tiny.get_positions(case["input_ids"], case.get("image_grid_hw"))
    assert positions[:, 0].equal(case["thw_positions"])


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_hidden_states_and_logits(
    model: NeoForConditionalGeneration, vectors: dict[str, dict[str, Tensor]], name: str
) -> None:
    case = vectors[name]
    seen = {}
    layers = model.model.language_model
    layers.layers[0].register_forward_hook(lambda module, args, output: seen.update(first=output[0]))
    layers.norm.register_forward_hook(lambda module, args, output: seen.update(last=output[0]))
    logits = model(**inputs_of(case)).logits[0]
    torch.testing.assert_close(seen["first"], case["hidden_first_layer"], atol=1e-4, rtol=0)  # measured: 1.2e-5 of 10
    torch.testing.assert_close(seen["last"], case["hidden_last"], atol=1e-4, rtol=0)  # measured: 1.1e-5 of 5.7
    torch.testing.assert_close(logits, case["logits"], atol=1e-4, rtol=0)  # measured: 1.4e-5 of 7


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_greedy_through_forward(
    tiny: NeoForConditionalGeneration, vectors: dict[str, dict[str, Tensor]], name: str
) -> None:
    """Token by token with a cache. In "two_images" the model writes <IMG_CONTEXT>: a word like others."""
    case = vectors[name]
    output = tiny(**inputs_of(case))
    last = int(case["thw_positions"][0, -1])
    for place, expected in enumerate(case["greedy_ids"].tolist(), 1):
        token = output.logits[:, -1:].argmax(-1)
        assert token.item() == expected
        position = torch.tensor([last + place, 0, 0]).view(3, 1, 1)
        output = tiny(input_ids=token, position_ids=position, past_key_values=output.past_key_values)


@pytest.mark.parametrize("name", [name for name in CASES if name != "two_images"])
@torch.no_grad()
def test_greedy_through_one_forward_of_everything(
    model: NeoForConditionalGeneration, vectors: dict[str, dict[str, Tensor]], name: str
) -> None:
    case = vectors[name]
    ids = torch.cat([case["input_ids"], case["greedy_ids"][None, :-1]], dim=1)
    logits = model(**{**inputs_of(case), "input_ids": ids}, logits_to_keep=24).logits[0]
    assert logits.argmax(-1).equal(case["greedy_ids"])


@pytest.mark.parametrize("name", CASES)
def test_greedy_through_generate(
    model: NeoForConditionalGeneration, vectors: dict[str, dict[str, Tensor]], name: str
) -> None:
    case = vectors[name]
    generated = model.generate(**inputs_of(case), max_new_tokens=24, do_sample=False)
    assert generated[0, case["input_ids"].shape[1] :].equal(case["greedy_ids"])
