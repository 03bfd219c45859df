"""Optimisers and the learning rate."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from neo.training.config import OptimizerConfig


def build_optimizers(named: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """The optimisers of these parameters, given with their names in the model.

    `adamw` is fused AdamW; matrices decay, norms and biases (all that is one-dimensional) do not. With `muon` the
    matrices of the layers are stepped by Muon instead (their update orthogonalised and scaled to the size of
    AdamW's, so that one learning rate serves both); embeddings, head, convolutions and norms stay with AdamW.
    """
    named = list(named)
    muon = [p for name, p in named if config.name == "muon" and p.ndim == 2 and ".layers." in name]
    rest = [p for _, p in named if not any(p is other for other in muon)]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.eps, fused=True)
    if not muon:
        return [adamw]
    rate, decay = config.learning_rate, config.weight_decay
    return [adamw, torch.optim.Muon(muon, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")]


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Of step `step` (from 0) of `steps`: linear warm-up, then a cosine to `min_fraction` of the peak."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - 1 - config.warmup_steps)
    fraction = config.min_fraction + (1 - config.min_fraction) * (1 + math.cos(math.pi * min(1.0, done))) / 2
    return config.learning_rate * fraction
