import pytest
import torch

from neo.training.config import OptimizerConfig
from neo.training.optimizer import build_optimizer, learning_rate

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
    decayed, kept = build_optimizer([*layer.parameters(), *norm.parameters()], CONFIG).param_groups
    assert decayed["params"] == [layer.weight]
    assert decayed["weight_decay"] == 0.01
    assert len(kept["params"]) == 3
    assert kept["weight_decay"] == 0.0
