"""AdamW and its learning rate."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from neo.training.config import OptimizerConfig


def build_optimizer(parameters: Iterable[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    """Fused AdamW; matrices decay, norms and biases (all that is one-dimensional) do not."""
    parameters = list(parameters)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.eps, fused=True)


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Of step `step` (from 0) of `steps`: linear warm-up, then a cosine to `min_fraction` of the peak."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - 1 - config.warmup_steps)
    fraction = config.min_fraction + (1 - config.min_fraction) * (1 + math.cos(math.pi * min(1.0, done))) / 2
    return config.learning_rate * fraction
