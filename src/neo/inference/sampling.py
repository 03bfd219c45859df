"""Choosing the next token from its logits."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Raises:
        ValueError: a value outside its range.
    """

    temperature: float = 0.0
    """0 always takes the likeliest token; 1 samples from the model's own distribution."""
    top_p: float = 1.0
    """Sample only among the likeliest tokens that together reach this probability."""
    top_k: int | None = None
    """Sample only among so many likeliest tokens."""
    seed: int | None = None
    """Same seed, same answer; None draws a new one each time. Of no effect at temperature 0."""

    def __post_init__(self) -> None:
        for name, kinds in (("temperature", int | float), ("top_p", int | float), ("top_k", int), ("seed", int)):
            value = getattr(self, name)
            if not isinstance(value, kinds) and (value is not None or name not in ("top_k", "seed")):
                raise ValueError(f"{name}={value!r} must be a {'whole ' if kinds is int else ''}number")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must lie above 0 and be 1 at the most")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must lie between 0 and 2**63 - 1")

    def generators(self, rows: int) -> list[torch.Generator]:
        """One generator for each row of a batch, of the same seed: a row is sampled as if it were alone."""
        generators = [torch.Generator() for _ in range(rows if self.temperature else 0)]
        for generator in generators:
            generator.manual_seed(self.seed) if self.seed is not None else generator.seed()
        return generators

    def choose(self, logits_BV: Tensor, generators: list[torch.Generator]) -> Tensor:
        """(B, V) logits to (B,) token ids."""
        if not self.temperature:
            return logits_BV.argmax(-1)
        # In float32 on the CPU, so that a seed means the same tokens on every device.
        rows = zip(self.probabilities(logits_BV.float().cpu()), generators, strict=True)
        return torch.cat([torch.multinomial(row, 1, generator=one) for row, one in rows]).to(logits_BV.device)

    def probabilities(self, logits_BV: Tensor) -> Tensor:
        """(B, V) probabilities that are sampled from, at a temperature above 0."""
        # From the largest down, so that a temperature near 0 makes -inf of the others and never inf - inf.
        below_BV = logits_BV - logits_BV.amax(-1, keepdim=True)
        probabilities = (below_BV.double() / self.temperature).softmax(-1).to(logits_BV.dtype)
        if self.top_k is None and self.top_p == 1:
            return probabilities
        sorted_BV, order_BV = probabilities.sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            sorted_BV[:, self.top_k :] = 0
        if self.top_p < 1:
            # A token stays while those before it do not reach top_p; the first always does.
            before_BV = sorted_BV.cumsum(-1) - sorted_BV
            sorted_BV[before_BV >= self.top_p * sorted_BV.sum(-1, keepdim=True)] = 0
        kept = torch.zeros_like(probabilities).scatter(-1, order_BV, sorted_BV)
        return kept / kept.sum(-1, keepdim=True)
