"""One training step on three documents packed in a row: the reference's loss and every gradient."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from neo.model import attention
from neo.model.checkpoint import published_name
from neo.model.config import IGNORE
from neo.model.loss import document_loss_weights
from neo.model.neo import NeoForConditionalGeneration


@pytest.fixture(scope="module")
def step(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "train_step_a.safetensors")


@pytest.fixture(scope="module")
def batch(step: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's inputs. The stored labels are one number; they are the ids where the weight is not zero."""
    input_ids, weights = step["input_ids"].view(1, -1), step["loss_weight"].view(1, -1)
    lengths = step["seq_boundaries"].diff()
    return {
        "input_ids": input_ids,
        "labels": input_ids.where(weights > 0, IGNORE),
        "document_ids": torch.arange(len(lengths)).repeat_interleave(lengths)[None],
        "loss_weights": weights,
        "pixel_values": step["pixel_values"],
        "image_grid_hw": step["image_grid_hw"],
    }


def test_positions_start_anew_in_each_document(
    tiny: NeoForConditionalGeneration, step: dict[str, Tensor], batch: dict[str, Tensor]
) -> None:
    positions = tiny.get_positions(batch["input_ids"], batch["image_grid_hw"], document_ids=batch["document_ids"])
    assert positions[0].flatten().equal(step["t_positions"].flatten())


def test_loss_weights(batch: dict[str, Tensor]) -> None:
    weights = document_loss_weights(batch["labels"], batch["document_ids"], "square")
    torch.testing.assert_close(weights, batch["loss_weights"], atol=1e-7, rtol=0)  # measured: 3.0e-8


@pytest.mark.parametrize(
    ("implementation", "segment_cost"), [("eager", None), ("sdpa", float("inf")), ("sdpa", 0)], ids=str
)
def test_loss_and_gradients(
    tiny: NeoForConditionalGeneration,
    step: dict[str, Tensor],
    batch: dict[str, Tensor],
    implementation: str,
    segment_cost: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny.set_attn_implementation(implementation)
    if segment_cost is not None:
        monkeypatch.setattr(attention, "SEGMENT_COST", segment_cost)
    output = tiny(**batch)
    torch.testing.assert_close(output.logits[0], step["logits"].squeeze(0), atol=1e-4, rtol=0)  # measured: 1.4e-5
    torch.testing.assert_close(output.loss, step["loss"].squeeze(), atol=1e-5, rtol=0)  # measured: 1.4e-6

    output.loss.backward()
    expected = {name.removeprefix("grad."): value for name, value in step.items() if name.startswith("grad.")}
    gradients = {published_name(name): parameter.grad for name, parameter in tiny.named_parameters()}
    assert gradients.keys() == expected.keys()
    errors = {
        name: ((gradients[name] - value).norm() / value.norm().clamp_min(1e-12)).item()
        for name, value in expected.items()
    }
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] < 1e-4, worst  # measured: 4.4e-6


@torch.no_grad()
def test_flex_gives_the_same_loss(
    tiny: NeoForConditionalGeneration, step: dict[str, Tensor], batch: dict[str, Tensor]
) -> None:
    tiny.set_attn_implementation("flex_attention")
    output = tiny(**batch)
    torch.testing.assert_close(output.logits[0], step["logits"].squeeze(0), atol=1e-4, rtol=0)  # measured: 1.4e-5
    torch.testing.assert_close(output.loss, step["loss"].squeeze(), atol=1e-5, rtol=0)  # measured: 9.5e-7


def test_flex_cannot_train_on_cpu(tiny: NeoForConditionalGeneration, batch: dict[str, Tensor]) -> None:
    tiny.set_attn_implementation("flex_attention")
    with pytest.raises(ValueError, match="cannot train on CPU"):
        tiny(**batch)
