"""Choosing the next token from its logits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
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
    min_p: float = 0.0
    """Sample only among tokens at least this likely, relative to the likeliest."""
    repetition_penalty: float = 1.0
    """Logits of tokens that stand in the prompt or the answer are divided by it, negative ones multiplied."""
    seed: int | None = None
    """Same seed, same answer; None draws a new one each time. Of no effect at temperature 0."""

    def __post_init__(self) -> None:
        numbers = ("temperature", "top_p", "min_p", "repetition_penalty")
        for name in (*numbers, "top_k", "seed"):
            value = getattr(self, name)
            kinds = int | float if name in numbers else int
            if (value is not None or name in numbers) and (not isinstance(value, kinds) or isinstance(value, bool)):
                raise ValueError(f"{name}={value!r} must be a {'' if name in numbers else 'whole '}number")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p} must lie above 0 and be 1 at the most")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p={self.min_p} must lie between 0 and 1")
        if not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(f"repetition_penalty={self.repetition_penalty} must be above 0; 1 is none")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed} must lie between 0 and 2**63 - 1")

    def numbered(self, number: int) -> Self:
        """For one of several answers to a prompt, counted from 0: the first has the seed, each other one made of it."""
        if not number or self.seed is None:
            return self
        seed = np.random.SeedSequence([self.seed, number]).generate_state(1, np.uint64)[0] >> 1
        return replace(self, seed=int(seed))

    def generator(self) -> torch.Generator | None:
        """The random numbers of one request; none are needed at temperature 0."""
        if not self.temperature:
            return None
        generator = torch.Generator()
        generator.manual_seed(self.seed) if self.seed is not None else generator.seed()
        return generator

    def choose(self, logits_V: Tensor, generator: torch.Generator | None, seen: Sequence[int] = ()) -> int:
        """The next token.

        Args:
            logits_V: of one request.
            generator: from `generator()`, its state is moved on.
            seen: tokens of prompt and answer, for the repetition penalty.
        """
        if self.repetition_penalty != 1:
            logits_V = self._penalised(logits_V, seen)
        if generator is None:
            return int(logits_V.argmax())
        # In float32 on the CPU, so that a seed means the same tokens on every device.
        return int(torch.multinomial(self.probabilities(logits_V.float().cpu()), 1, generator=generator))

    def probabilities(self, logits_V: Tensor) -> Tensor:
        """(V,) probabilities that are sampled from, at a temperature above 0."""
        # From the largest down, so that a temperature near 0 makes -inf of the others and never inf - inf.
        below_V = logits_V - logits_V.max()
        probabilities = (below_V.double() / self.temperature).softmax(-1).to(logits_V.dtype)
        if self.top_k is None and self.top_p == 1 and not self.min_p:
            return probabilities
        sorted_V, order_V = probabilities.sort(descending=True, stable=True)
        if self.top_k is not None:
            sorted_V[self.top_k :] = 0
        if self.top_p < 1:
            # A token stays while those before it do not reach top_p; the first always does.
            before_V = sorted_V.cumsum(-1) - sorted_V
            sorted_V[1:][before_V[1:] >= self.top_p * sorted_V.sum()] = 0
        sorted_V[sorted_V < self.min_p * sorted_V[0]] = 0
        kept = torch.zeros_like(probabilities).scatter(-1, order_V, sorted_V)
        return kept / kept.sum()

    def _penalised(self, logits_V: Tensor, seen: Sequence[int]) -> Tensor:
        ids = torch.tensor(sorted(set(seen)), dtype=torch.long, device=logits_V.device)
        scores = logits_V[ids]
        # Within what these numbers can hold, or 0 / 0 and inf - inf would come of it; -inf, a forbidden token, stays.
        penalty, most = min(max(self.repetition_penalty, 1e-30), 1e30), torch.finfo(scores.dtype).max
        penalised = torch.where(scores < 0, scores * penalty, scores / penalty).clamp(-most, most)
        return logits_V.index_put((ids,), torch.where(scores.isinf(), scores, penalised))
