"""Measuring a run."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from neo.data.loader import Batch
from neo.model.config import PADDING
from neo.model.sizes import Arithmetic
from neo.training.distributed import Ranks
from neo.training.hardware import peak_memory
from neo.training.learner import Step
from neo.training.metrics import LOSS_OF

T = TypeVar("T")


@dataclass
class _Window:
    """What this rank has counted since the last line."""

    since: float | None = None
    """When its first batch was waited for: what happens between lines, as saving does, is not counted."""
    waited: float = 0.0
    tokens: int = 0
    places: int = 0
    samples: int = 0
    flops: int = 0
    losses: list[float] = field(default_factory=list)
    kinds: list[list[str]] = field(default_factory=list)
    """Of each document: its source, and source/family."""
    sums: list[Tensor] = field(default_factory=list)
    """Of each document: its weighted loss and its weight; left on the device until a line is due."""


class Meter:
    """Measures a run from line to line; every rank has one, and they put their numbers together for a line."""

    def __init__(self, arithmetic: Arithmetic, merge_size: int, ranks: Ranks, peak: float | None = None) -> None:
        """Begin to measure.

        Args:
            arithmetic: of the model.
            merge_size: patches of a token, in each direction.
            ranks: this process among the others.
            peak: operations a second that a device can do.
        """
        self.arithmetic, self.merge_size, self.ranks, self.peak = arithmetic, merge_size, ranks, peak
        self.began = time.perf_counter()
        self._rate, self._norm = 0.0, math.nan
        self._window = _Window()

    def wait_for(self, batches: Iterator[T]) -> T | None:
        """The next of what is waited for, None after the last."""
        before = time.perf_counter()
        if self._window.since is None:
            self._window.since = before
        batch = next(batches, None)
        self._window.waited += time.perf_counter() - before
        return batch

    def add_step(self, batch: Batch, step: Step) -> None:
        """Count a step and what this rank had of its batch."""
        window, self._rate = self._window, step.rate
        window.tokens += batch.tokens
        window.places += batch.inputs["document_ids"].numel()
        window.samples += len(batch.names)
        window.flops += self.arithmetic.training(batch.tokens, self._pairs(batch), batch.labelled)
        if step.finite:
            self._norm = step.norm
            window.losses.append(step.loss)
            window.kinds += [
                [source, f"{source}/{family}"] if family else [source]
                for source, family in zip(batch.sources, batch.families, strict=True)
            ]
            window.sums.append(_by_document(batch.inputs["document_ids"], step.token_losses_BL, step.weights_BL))

    def line(self, step: int, skipped: int) -> dict[str, Any]:
        """What was measured since the line before, over all ranks together: `FIELDS`, and losses by source.

        Args:
            step: steps done.
            skipped: steps left out among them.
        """
        window, self._window = self._window, _Window()
        sums = torch.cat(window.sums).tolist() if window.sums else []
        by_kind: dict[str, list[float]] = {}
        for kinds, (loss, weight) in zip(window.kinds, sums, strict=True):
            for kind in kinds:
                total = by_kind.setdefault(kind, [0.0, 0.0])
                total[0] += loss
                total[1] += weight
        now = time.perf_counter()
        counted = (window.waited, window.tokens, window.places, window.samples, window.flops)
        gathered = self.ranks.gather((counted, by_kind, peak_memory(self.ranks.device)))
        counts = zip(*(one[0] for one in gathered), strict=True)
        waited, tokens, places, samples, flops = (sum(of_ranks) for of_ranks in counts)
        assert window.since is not None, "a line is made of batches that were waited for"
        seconds, losses = now - window.since, window.losses
        line = {
            "step": step,
            "loss": sum(losses) / len(losses) if losses else None,
            "learning_rate": self._rate,
            "gradient_norm": None if math.isnan(self._norm) else self._norm,
            "tokens_per_second": tokens / seconds,
            "samples_per_second": samples / seconds,
            "fill": tokens / max(1, places),
            "data_wait": waited / self.ranks.size / seconds,
            "mfu": flops / seconds / (self.peak * self.ranks.size) if self.peak else None,
            "memory_gib": max(one[2] for one in gathered) / 2**30,
            "skipped_steps": skipped,
            "seconds": now - self.began,
        }
        return line | _mean_losses([one[1] for one in gathered])

    def _pairs(self, batch: Batch) -> int:
        """Pairs of a token and one that it sees: what came before it in its document, and all of its picture."""
        documents_BL = batch.inputs["document_ids"]
        places_BL = documents_BL + torch.arange(len(documents_BL)).unsqueeze(1) * documents_BL.shape[1]
        lengths = places_BL[documents_BL != PADDING].bincount()
        pictures = batch.inputs.get("image_grid_hw", documents_BL.new_zeros(0, 2)).prod(-1) // self.merge_size**2
        return int((lengths * (lengths + 1)).sum() + (pictures * (pictures - 1)).sum()) // 2


def _by_document(documents_BL: Tensor, token_losses_BL: Tensor, weights_BL: Tensor) -> Tensor:
    """(documents, 2): weighted loss and weight of each, row by row; on the device of the losses, without waiting.

    Args:
        documents_BL: the document of each token, numbered from 0 in each row, on CPU.
        token_losses_BL: the loss of each label.
        weights_BL: the weight of each label.
    """
    counts_B = documents_BL.amax(1) + 1
    rows, most = len(counts_B), max(1, int(counts_B.max()))
    places_BL = documents_BL + torch.arange(rows).unsqueeze(1) * most
    places_BL = places_BL.masked_fill(documents_BL == PADDING, rows * most)
    there = (torch.arange(most) < counts_B.unsqueeze(1)).flatten().nonzero().squeeze(1)
    values = torch.stack([token_losses_BL * weights_BL, weights_BL], dim=-1).flatten(0, 1)
    sums = values.new_zeros(rows * most + 1, 2).index_add_(0, places_BL.flatten().to(values.device), values)
    return sums.index_select(0, there.to(values.device))


def _mean_losses(by_rank: list[dict[str, list[float]]]) -> dict[str, float]:
    """By source and family, over all ranks."""
    result = {}
    for kind in sorted({kind for by_kind in by_rank for kind in by_kind}):
        of_ranks = [by_kind[kind] for by_kind in by_rank if kind in by_kind]
        loss, weight = (sum(values) for values in zip(*of_ranks, strict=True))
        if weight:
            result[LOSS_OF + kind] = loss / weight
    return result
