"""Several documents in a row of fixed length: none split, none lost, little padding.

The packer holds a pool of documents in the order of the stream. A row takes the oldest one first, so that
none waits for ever, and then always the longest that still fits. What is in the pool depends on the stream
alone, and the packer's state is the stream indices of the pool: a few integers.
"""

import logging
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)

BUDGET_START = 100
"""The budget of bad samples is a share of the samples seen, of at least so many."""


@dataclass(frozen=True)
class Document:
    """One sample of the stream as the network reads it."""

    index: int
    """k, its place in the stream."""
    name: str
    """Source and record, for messages."""
    input_ids: np.ndarray
    """(L,) int64."""
    labels: np.ndarray
    """(L,) int64, -100 where nothing is learned."""
    pixel_values: torch.Tensor
    """(patches, 768) float32, no rows without pictures."""
    image_grid_hw: np.ndarray
    """(pictures, 2) int64, in patches."""

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class BadSample:
    """A sample that could not be read, and why."""

    index: int
    name: str
    reason: str


Row = list[Document]
"""Documents that share a row, in their order in it."""


class Packer:
    """Documents of the stream to batches of full rows."""

    def __init__(
        self, max_seq_length: int, rows_per_batch: int, lookahead_rows: int = 64, max_bad_fraction: float = 0.01
    ) -> None:
        """Set the shape of batches.

        Args:
            max_seq_length: tokens of a row.
            rows_per_batch: rows of a batch.
            lookahead_rows: rows worth of tokens to choose from.
            max_bad_fraction: share of samples that may be too long or unreadable before training stops.
        """
        self.max_seq_length, self.rows_per_batch = max_seq_length, rows_per_batch
        self.pool_tokens = max(lookahead_rows, rows_per_batch) * max_seq_length
        self.max_bad_fraction = max_bad_fraction
        self.next_index = 0
        self.bad = 0
        self._restoring: list[int] = []
        self._pool: dict[int, Document] = {}  # by stream index, oldest first
        self._by_length: list[tuple[int, int]] = []  # (length, -index), sorted
        self._tokens = 0

    def state_dict(self) -> dict[str, Any]:
        """The next sample to read, the samples that were read but not packed, and how many were bad."""
        return {"next_index": self.next_index, "pool": list(self._pool), "bad": self.bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; the stream must then be given as `wanted` says."""
        self.next_index, self._restoring, self.bad = state["next_index"], list(state["pool"]), state["bad"]
        self._pool, self._by_length, self._tokens = {}, [], 0

    def wanted(self) -> Iterator[int]:
        """The samples to feed, in order: those in the pool when the state was taken, then the rest."""
        yield from self._restoring
        k = self.next_index
        while True:
            yield k
            k += 1

    def batches(self, documents: Iterable[Document | BadSample]) -> Iterator[list[Row]]:
        """Pack a stream of documents; at the stream's end the last batch may be shorter.

        Raises:
            ValueError: more samples are bad than the budget allows.
        """
        stream = iter(documents)
        for _ in self._restoring:
            self._add(next(stream))  # good when it was read first, and reading is pure
        self._restoring = []
        while True:
            ended = self._fill(stream)
            rows = [self._row() for _ in range(self.rows_per_batch) if self._pool]
            if rows:
                yield rows
            if ended and not self._pool:
                return

    def _fill(self, stream: Iterator[Document | BadSample]) -> bool:
        while self._tokens < self.pool_tokens:
            document = next(stream, None)
            if document is None:
                return True
            self.next_index = document.index + 1
            if isinstance(document, BadSample):
                self._count_bad(document.name, document.reason)
            elif len(document) > self.max_seq_length:
                self._count_bad(document.name, f"{len(document)} tokens do not fit a row of {self.max_seq_length}")
            else:
                self._add(document)
        return False

    def _add(self, document: Document | BadSample) -> None:
        if isinstance(document, BadSample):
            raise ValueError(f"{document.name} could be read before the run was resumed but not now: {document.reason}")
        self._pool[document.index] = document
        insort(self._by_length, (len(document), -document.index))
        self._tokens += len(document)

    def _count_bad(self, name: str, reason: str) -> None:
        self.bad += 1
        logger.warning("left out %s: %s", name, reason)
        if self.bad > self.max_bad_fraction * max(self.next_index, BUDGET_START):
            raise ValueError(
                f"{self.bad} of the first {self.next_index} samples were left out, more than "
                f"max_bad_fraction={self.max_bad_fraction} allows; the last was {name}: {reason}"
            )

    def _row(self) -> Row:
        oldest = next(iter(self._pool.values()))
        row, room = [], self.max_seq_length
        place = bisect_right(self._by_length, (len(oldest), -oldest.index)) - 1
        while True:
            length, key = self._by_length.pop(place)
            row.append(self._pool.pop(-key))
            room -= length
            self._tokens -= length
            # The longest that fits; of equal ones the oldest, whose negated index is the largest.
            place = bisect_right(self._by_length, (room, 1)) - 1
            if place < 0:
                return row
