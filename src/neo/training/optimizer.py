"""Optimisers and the learning rate."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from neo.data.config import at_least
from neo.model.linear import multiplies_bf16
from neo.model.neo import NeoForConditionalGeneration
from neo.suggestion import suggestion
from neo.training.stages import EVERYTHING, LLM_HW, LLM_TEXT, PRE_BUFFER, parts

WARMUP_FRACTION = 0.03
"""Of all steps, where a recipe does not say."""


@dataclass
class OptimizerConfig:
    """The optimiser and its learning rate: a linear warm-up, then a schedule."""

    name: Literal["adamw", "muon"] = "adamw"
    """AdamW for all, or Muon for the matrices of the layers and AdamW for the rest."""
    learning_rate: float = 8e-4
    """Peak."""
    part_learning_rates: dict[str, float] = field(default_factory=dict)
    """Peaks of parts of the model that have another, by their names in `neo.training.stages`, as `patch embedding`."""
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    """From the warm-up on: a cosine to `min_fraction` of the peak, the peak, or the peak and a decay at the end
    (warm-up, stable, decay)."""
    min_fraction: float = 0.05
    """Share of the peak at the last step (schedules cosine and wsd)."""
    warmup_steps: int | None = None
    """Steps up to the peak."""
    warmup_fraction: float | None = None
    """The same as a share of all steps, 0.03 where neither is given."""
    decay_fraction: float = 0.2
    """Share of all steps that decay at the end (schedule wsd)."""
    decay_shape: Literal["linear", "1-sqrt"] = "1-sqrt"
    """How they do; 1-sqrt falls fast first (Hägele et al. 2024, arXiv 2405.18392)."""
    beta1: float = 0.9
    """Decay of the mean of gradients."""
    beta2: float = 0.95
    """Decay of the mean of squared gradients."""
    eps: float = 1e-8
    """Added to the root of the latter."""
    weight_decay: float = 0.01
    """Of matrices; norms and biases have none."""
    clip: float = 1.0
    """Largest norm of the whole gradient."""

    def __post_init__(self) -> None:
        at_least(self, 0, "learning_rate", "eps", "weight_decay", "min_fraction", "beta1", "beta2", "decay_fraction")
        for name in ("min_fraction", "warmup_fraction", "decay_fraction"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise ValueError(f"optimizer.{name}={getattr(self, name)} must be between 0 and 1")
        if self.warmup_steps is not None:
            at_least(self, 0, "warmup_steps")
            if self.warmup_fraction is not None:
                raise ValueError(
                    f"optimizer.warmup_steps={self.warmup_steps} and warmup_fraction={self.warmup_fraction} say the "
                    "same thing twice; set one of them to null"
                )
        if self.clip <= 0:
            raise ValueError(f"optimizer.clip={self.clip} must be above 0")
        if max(self.beta1, self.beta2) >= 1:
            raise ValueError(f"optimizer.beta1={self.beta1} and beta2={self.beta2} must be below 1")
        for part, rate in self.part_learning_rates.items():
            if part not in EVERYTHING:
                near = suggestion(part, sorted(EVERYTHING))
                raise ValueError(f"optimizer.part_learning_rates: {part!r} is no part{near}")
            if not rate > 0:
                raise ValueError(f"optimizer.part_learning_rates: {part!r} has rate {rate}, which must be above 0")

    def warmup(self, steps: int) -> int:
        """Steps of the warm-up in a run of so many.

        Raises:
            ValueError: the run is too short for warm-up and decay.
        """
        warmup = self.warmup_steps
        if warmup is None:
            fraction = WARMUP_FRACTION if self.warmup_fraction is None else self.warmup_fraction
            warmup = round(fraction * steps)
        if warmup > steps:
            raise ValueError(f"optimizer.warmup_steps={warmup} is above steps={steps}")
        if self.schedule == "wsd" and warmup + self.decay(steps) > steps:
            raise ValueError(
                f"a warm-up of {warmup} steps and a decay of {self.decay(steps)} (optimizer.decay_fraction="
                f"{self.decay_fraction}) do not fit into steps={steps}"
            )
        return warmup

    def decay(self, steps: int) -> int:
        """Steps of the decay of schedule wsd in a run of so many."""
        return round(self.decay_fraction * steps)


def build_optimizers(model: NeoForConditionalGeneration, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """The optimisers of a model's trained parameters, sharded or not.

    `adamw` is fused AdamW; matrices decay, norms and biases (all that is one-dimensional) do not. With `muon` the
    matrices of the layers are stepped by Muon instead (their update orthogonalised and scaled to the size of
    AdamW's, so that one learning rate serves both); embeddings, head, convolutions and norms stay with AdamW.
    Each group of parameters knows its `peak`.

    Raises:
        ValueError: a part has a learning rate of its own but is not trained.
    """
    adamw: list[dict[str, Any]] = []
    muon: list[dict[str, Any]] = []
    for part, parameters in parts(model).items():
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        if part in config.part_learning_rates and not trained:
            raise ValueError(f"optimizer.part_learning_rates names {part!r}, of which nothing is trained here")
        peak = config.part_learning_rates.get(part, config.learning_rate)
        matrices, vectors = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
        of_matrices = muon if config.name == "muon" and part in (PRE_BUFFER, LLM_HW, LLM_TEXT) else adamw
        if matrices:
            of_matrices.append({"params": matrices, "weight_decay": config.weight_decay, "peak": peak})
        if vectors:
            adamw.append({"params": vectors, "weight_decay": 0.0, "peak": peak})
    optimizers: list[torch.optim.Optimizer] = []
    if adamw:
        optimizers.append(torch.optim.AdamW(adamw, betas=(config.beta1, config.beta2), eps=config.eps, fused=True))
    if muon:
        slow = muon[0]["params"][0].device.type == "cpu" and not multiplies_bf16()
        kind = Float32Muon if slow else torch.optim.Muon
        optimizers.append(kind(muon, adjust_lr_fn="match_rms_adamw"))
    return optimizers


class Float32Muon(torch.optim.Muon):
    """torch's Muon with products in float32: a CPU without bf16 instructions takes three times as long for torch's."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient; `match_rms_adamw` is the only scale of updates here."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for parameter in (one for one in group["params"] if one.grad is not None):
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                mean = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
                ahead = parameter.grad.lerp(mean, momentum)  # Nesterov
                update = orthogonal(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"])
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.add_(update, alpha=-0.2 * rate * math.sqrt(max(parameter.shape)))


def orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """A matrix with its singular values brought near 1 by a Newton-Schulz iteration of X (a + b X'X + c (X'X)^2)."""
    a, b, c = coefficients
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def set_learning_rates(
    optimizers: Iterable[torch.optim.Optimizer], step: int, steps: int, config: OptimizerConfig
) -> float:
    """Give each group of parameters the rate of step `step` (from 0) of `steps`; returns that of most parts."""
    share = share_of_peak(step, steps, config)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
    return config.learning_rate * share


def share_of_peak(step: int, steps: int, config: OptimizerConfig) -> float:
    """The schedule: what share of its peak a learning rate has at step `step` (from 0) of `steps`."""
    warmup = config.warmup(steps)
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    begin = steps - 1 - config.decay(steps) if config.schedule == "wsd" else warmup
    fallen = min(1.0, max(0, step - begin) / max(1, steps - 1 - begin))
    if config.schedule == "cosine":
        left = (1 + math.cos(math.pi * fallen)) / 2
    else:
        left = 1 - (fallen if config.decay_shape == "linear" else math.sqrt(fallen))
    return config.min_fraction + (1 - config.min_fraction) * left
