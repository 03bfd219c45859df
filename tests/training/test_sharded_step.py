"""Loss in chunks, clipping and optimiser on parameters that are sharded over two ranks give what one process gives."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from neo.model import neo
from neo.model.config import NeoConfig
from neo.model.neo import NeoForConditionalGeneration
from neo.training.distributed import DistributedConfig, Ranks, joined, spread
from neo.training.optimizer import OptimizerConfig, build_optimizers, set_learning_rates
from neo.training.stages import PATCH

from .runs import on_ranks

FSDP = DistributedConfig(strategy="fsdp")
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, part_learning_rates={PATCH: 1e-3}, warmup_steps=0)
CLIP = 0.1
VOCABULARY = 512


def take_step(
    config: NeoConfig, inputs: dict[str, Tensor], labels: int, ranks: Ranks | None
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """One step from fresh weights, each rank on its row: loss, norm of the gradient, weights after it."""
    torch.manual_seed(0)
    model = NeoForConditionalGeneration(config).train()
    size = 1
    if ranks is not None:
        spread(model, "fsdp", FSDP, ranks, bf16=False)
        size, inputs = ranks.size, {name: rows[ranks.rank].unsqueeze(0) for name, rows in inputs.items()}
    optimizers = build_optimizers(model, OPTIMIZER)
    loss = model(**inputs, num_items_in_batch=labels / size).loss
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    set_learning_rates(optimizers, 5, 10, OPTIMIZER)
    for optimizer in optimizers:
        optimizer.step()
    loss = loss.detach() / size
    if ranks is None:
        return loss, norm, dict(model.named_parameters())
    weights = {name: parameter.full_tensor().detach() for name, parameter in model.named_parameters()}
    return ranks.sum(loss), norm.full_tensor(), weights


def as_rank(config: NeoConfig, inputs: dict[str, Tensor], labels: int, file: Path) -> None:
    neo.CHUNK_LOGITS = 7 * VOCABULARY  # many chunks, and not equally many on both ranks
    with joined(FSDP, "cpu") as ranks:
        result = take_step(config, inputs, labels, ranks)
        if ranks.first:
            torch.save(result, file)


@pytest.mark.parametrize("tied", [False, True])
def test_two_ranks_take_the_step_of_one(small_config: NeoConfig, tmp_path: Path, tied: bool) -> None:
    small_config.tie_word_embeddings = small_config.text_config.tie_word_embeddings = tied
    ids = torch.randint(1, 500, (2, 40), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[0, :25] = -100
    inputs = {"input_ids": ids, "labels": labels}
    count = int((labels[:, 1:] != -100).sum())
    loss, norm, weights = take_step(small_config, inputs, count, None)
    assert on_ranks(2, as_rank, small_config, inputs, count, tmp_path / "step.pt") == [0, 0]
    their_loss, their_norm, their_weights = torch.load(tmp_path / "step.pt")
    torch.testing.assert_close(their_loss, loss, atol=1e-5, rtol=0)  # measured: 1e-6
    torch.testing.assert_close(their_norm, norm, atol=0, rtol=1e-5)  # measured: 2e-7
    for name, weight in weights.items():
        torch.testing.assert_close(their_weights[name], weight.detach(), atol=1e-4, rtol=0)  # measured: 1.2e-5
