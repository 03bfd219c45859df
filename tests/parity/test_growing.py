"""Growing a NEO from a Qwen3 gives the reference's tensors, and with no new layers the Qwen3's logits."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from neo.model.checkpoint import published_name
from neo.model.from_llm import from_llm


def test_copied_layers_are_exact(golden: Path) -> None:
    expected = load_file(golden / "from_qwen3_a" / "expected.safetensors")
    model = from_llm(golden / "from_qwen3_a" / "qwen3", pre_buffer_layers=2)
    ours = {published_name(name).removeprefix("language_model."): value for name, value in model.state_dict().items()}
    for name, value in expected.items():
        assert ours[name].equal(value), name
    fresh = {name for name in ours if name.startswith(("model.layers.0.", "model.layers.1.", "vision_model."))}
    assert ours.keys() - fresh == expected.keys()


def test_fresh_layers_have_the_reference_statistics(golden: Path) -> None:
    meta = json.loads((golden / "from_qwen3_a" / "meta.json").read_text())
    model = from_llm(golden / "from_qwen3_a" / "qwen3", pre_buffer_layers=meta["extra_num_layers"])
    assert model.config.text_config.num_hidden_layers == meta["num_hidden_layers"]
    ours = {published_name(name).removeprefix("language_model."): value for name, value in model.state_dict().items()}
    for name, (shape, mean, std) in meta["new_layer_stats_mean_std"].items():
        for layer in range(meta["extra_num_layers"]):
            value = ours[name.replace(".0.", f".{layer}.", 1)]
            assert list(value.shape) == shape
            # Matrices hold 4 096 numbers or more: six standard errors of a mean are 0.002, of a std 0.0013.
            assert value.mean().item() == pytest.approx(mean, abs=2e-3 if std else 0), name
            assert (value.std().item() if std else value.std(correction=0).item()) == pytest.approx(std, abs=1.5e-3), (
                name
            )


@torch.no_grad()
def test_without_new_layers_text_logits_are_the_language_models(golden: Path) -> None:
    expected = load_file(golden / "from_qwen3_a" / "qwen3_forward.safetensors")
    model = from_llm(golden / "from_qwen3_a" / "qwen3", pre_buffer_layers=0).eval()
    logits = model(input_ids=expected["input_ids"][None]).logits[0]
    torch.testing.assert_close(logits, expected["qwen3_logits"], atol=1e-5, rtol=0)  # measured: 0
