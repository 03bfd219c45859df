"""Several documents in a row of fixed length: none split, none lost, little padding.

The stream is cut into blocks of consecutive samples, `lookahead_rows` rows worth of tokens each, and every block is
packed by itself: the longest document first, each into the fullest row that still holds it (best fit decreasing).
Its rows are then shuffled, because the first ones hold the long documents. So rows depend on the lengths of the
samples alone and are the same for any number of workers and ranks; a place among them is a few integers.

With `batch_by="samples"` a block is a batch: so many samples, in as few rows as hold them.
"""

import logging
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from neo.data.permutation import permuted

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
    family: str = ""
    """The kind of task, where its record tells."""

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Measured:
    """One sample of the stream that is still to be read, and how long it will be."""

    index: int
    name: str
    tokens: int

    def __len__(self) -> int:
        return self.tokens


@dataclass(frozen=True)
class BadSample:
    """A sample that could not be read, and why."""

    index: int
    name: str
    reason: str


Row = list[Document | Measured]
"""Documents that share a row, in their order in it."""


class Place(NamedTuple):
    """A place between two rows."""

    block: int = 0
    """The stream's sample with which the block of the next row begins."""
    row: int = 0
    """Rows of that block before it."""
    bad: int = 0
    """Samples left out before that block."""


class Packer:
    """Samples of the stream to rows."""

    def __init__(
        self,
        max_seq_length: int,
        rows_per_batch: int,
        lookahead_rows: int = 64,
        max_bad_fraction: float = 0.01,
        batch_by: Literal["rows", "samples"] = "rows",
        epoch: int | None = None,
    ) -> None:
        """Set the shape of rows and batches.

        Args:
            max_seq_length: tokens of a row.
            rows_per_batch: rows of a batch, over all ranks.
            lookahead_rows: rows worth of tokens of a block.
            max_bad_fraction: share of samples that may be too long or unreadable before training stops.
            batch_by: what a batch has `rows_per_batch` of; by samples, empty rows fill it up.
            epoch: samples after which a batch by samples ends in any case.
        """
        self.batch_by, self.epoch = batch_by, epoch
        self.max_seq_length, self.rows_per_batch = max_seq_length, rows_per_batch
        self.block_tokens = lookahead_rows * max_seq_length
        self.max_bad_fraction = max_bad_fraction
        self.restart(Place())

    def restart(self, place: Place) -> None:
        """Go on from a place; sample `place.block` of the stream is the next to be added."""
        self._place = place
        self.next_index, self.bad = place.block, place.bad
        self.tokens = 0
        """Of the open block."""
        self._open: Row = []

    def add(self, sample: Document | Measured | BadSample) -> list[tuple[Row, Place]]:
        """Take the next sample of the stream.

        Returns:
            The rows of the block that ends before it, if one does, each with the place after it.

        Raises:
            ValueError: more samples are bad than the budget allows.
        """
        finished: list[tuple[Row, Place]] = []
        if isinstance(sample, BadSample):
            self._count_bad(sample, sample.reason)
        elif len(sample) > self.max_seq_length:
            self._count_bad(sample, too_long(len(sample), self.max_seq_length))
        else:
            if self._open and self._ends_before(sample):
                finished = self._close(Place(sample.index, 0, self.bad))
            self._open.append(sample)
            self.tokens += len(sample)
        self.next_index = sample.index + 1
        return finished

    def finish(self) -> list[tuple[Row, Place]]:
        """The rows that are left when the stream has ended."""
        return self._close(Place(self.next_index, 0, self.bad)) if self._open else []

    def rows(self, samples: Iterable[Document | Measured | BadSample]) -> Iterator[Row]:
        """Pack a stream that ends."""
        for sample in samples:
            yield from (row for row, _ in self.add(sample))
        yield from (row for row, _ in self.finish())

    def tell(self, sample: Document | Measured | BadSample, reason: str) -> None:
        """Name a sample that is left out, in the first epoch: it is known in those after it."""
        known = self.epoch is not None and sample.index >= self.epoch
        logger.log(logging.DEBUG if known else logging.WARNING, "left out %s: %s", sample.name, reason)

    def _ends_before(self, sample: Document | Measured) -> bool:
        """Whether the open block does."""
        if self.batch_by == "rows":
            return self.tokens + len(sample) > self.block_tokens
        new_epoch = self.epoch is not None and sample.index // self.epoch > self._open[0].index // self.epoch
        return new_epoch or len(self._open) == self.rows_per_batch

    def _close(self, following: Place) -> list[tuple[Row, Place]]:
        rows = best_fit(self._open, self.max_seq_length)
        block, skipped, bad = self._place
        shuffled = [rows[permuted(number, len(rows), block)] for number in range(len(rows))]
        if self.batch_by == "samples":
            shuffled = _spread(shuffled, self.rows_per_batch)
        after = [*(Place(block, number, bad) for number in range(1, len(shuffled))), following]
        self.restart(following)
        return list(zip(shuffled, after, strict=True))[skipped:]

    def _count_bad(self, sample: Document | Measured | BadSample, reason: str) -> None:
        self.bad += 1
        self.tell(sample, reason)
        check_budget(self.bad, sample.index + 1, self.max_bad_fraction, f"{sample.name}: {reason}")


def best_fit(documents: Sequence[Document | Measured], room: int) -> list[Row]:
    """Share documents out among rows of `room` tokens: longest first, each to where it leaves the least room."""
    rows: list[Row] = []
    rooms: list[tuple[int, int]] = []  # room left and number of each row, sorted
    for document in sorted(documents, key=len, reverse=True):
        place = bisect_left(rooms, (len(document), -1))
        if place < len(rooms):
            left, number = rooms.pop(place)
        else:
            left, number = room, len(rows)
            rows.append([])
        rows[number].append(document)
        insort(rooms, (left - len(document), number))
    return rows


def _spread(rows: Sequence[Row], size: int) -> list[Row]:
    """The rows and empty ones, `size` in all, evenly mixed: any rank's part of them has its share of either."""
    result: list[Row] = [[] for _ in range(size)]
    for number, row in enumerate(rows):
        result[number * size // len(rows)] = row
    return result


def too_long(tokens: int, room: int) -> str:
    """Why a sample is left out that is longer than a row."""
    return f"{tokens} tokens do not fit a row of {room} (raise data.max_seq_length)"


def check_budget(bad: int, seen: int, max_bad_fraction: float, last: str) -> None:
    """Raise a ValueError when more of the samples seen were left out than the budget allows."""
    if bad > max_bad_fraction * max(seen, BUDGET_START):
        raise ValueError(
            f"{bad} of the first {seen} samples were left out, more than max_bad_fraction={max_bad_fraction} allows; "
            f"the last was {last} (neo data check names all)"
        )
