import pytest
import torch

from neo.training.config import OptimizerConfig
from neo.training.optimizer import build_optimizers, learning_rate

CONFIG = OptimizerConfig(learning_rate=1.0, min_fraction=0.1, warmup_steps=10)


def test_schedule() -> None:
    rates = [learning_rate(step, 110, CONFIG) for step in range(110)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0.55, abs=0.02)


def test_schedule_without_warmup_or_with_nothing_else() -> None:
    assert learning_rate(0, 1, OptimizerConfig(learning_rate=1.0, warmup_steps=0)) == 1.0
    assert learning_rate(9, 10, CONFIG) == 1.0


def test_norms_and_biases_do_not_decay() -> None:
    layer, norm = torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)
    named = [*layer.named_parameters("layer"), *norm.named_parameters("norm")]
    (adamw,) = build_optimizers(named, CONFIG)
    decayed, kept = adamw.param_groups
    assert decayed["params"] == [layer.weight]
    assert decayed["weight_decay"] == 0.01
    assert len(kept["params"]) == 3
    assert kept["weight_decay"] == 0.0


def test_muon_steps_the_matrices_of_layers_and_nothing_else() -> None:
    matrix, embedding = torch.nn.Linear(3, 4), torch.nn.Embedding(5, 3)
    named = [*matrix.named_parameters("model.layers.0.mlp.up_proj"), *embedding.named_parameters("model.embed_tokens")]
    adamw, muon = build_optimizers(named, OptimizerConfig(name="muon", learning_rate=1e-3))
    assert [p for group in muon.param_groups for p in group["params"]] == [matrix.weight]
    assert [p for group in adamw.param_groups for p in group["params"]] == [embedding.weight, matrix.bias]
    before = matrix.weight.detach().clone()
    matrix.weight.grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    muon.step()
    # Scaled as AdamW's first step would be: about 0.2 of the learning rate in the mean square.
    moved = ((matrix.weight - before) / 1e-3).square().mean().sqrt()
    assert 0.1 < moved < 0.3
