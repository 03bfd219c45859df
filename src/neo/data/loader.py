"""Batches for the training loop: rows of the global stream, of which each rank reads and encodes its own.

Packing needs lengths only. Every rank measures the whole stream, from indices or the heads of picture files, and
comes to the same rows; decoded and encoded is what stands in its own. One set of worker processes does both.
"""

import math
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch.utils.data import DataLoader

from neo.data.collate import collate
from neo.data.config import DataConfig
from neo.data.index import Index, open_indices
from neo.data.mixture import Mixture
from neo.data.packing import BadSample, Document, Measured, Packer, Place, check_budget
from neo.data.schedule import Draft, Schedule
from neo.data.stream import Answer, EncodedStream, Encoder
from neo.model.config import IGNORE
from neo.processing.processor import NeoProcessor

PREFETCH = 4
"""Chunks that each worker keeps ready."""
MULTIPLE = 16
"""Rows that need not be full have a multiple of so many tokens, which suits kernels and keeps their shapes few."""

Gather = Callable[[list[BadSample]], list[list[BadSample]]]
"""What a rank has found to what all of them have, on each of them."""


@dataclass(frozen=True)
class Batch:
    """One step's worth of data: this rank's rows of the global batch."""

    inputs: dict[str, torch.Tensor]
    """What `collate` made; rows that are all padding at the end of a stream that ends."""
    names: list[str]
    """The records in it, row by row."""
    sources: list[str]
    """Of these."""
    families: list[str]
    """Kinds of task of these, empty where they do not tell."""
    tokens: int
    """Tokens that are not padding."""
    labelled: int
    """Tokens that carry loss."""


class PackedLoader:
    """Packed batches with a state that a run can be resumed from, on any number of ranks."""

    def __init__(
        self,
        mixture: Mixture,
        processor: Encoder,
        packer: Packer,
        workers: int = 0,
        pad_token_id: int = 0,
        rank: int = 0,
        world_size: int = 1,
        indices: Sequence[Index | None] = (),
        gather: Gather = lambda own: [own],
    ) -> None:
        """Prepare the loader; processes start with the first batch.

        Args:
            mixture: the stream.
            processor: encodes messages.
            packer: the shape of batches.
            workers: processes that read ahead, 0 to read in this one.
            pad_token_id: what stands in padding.
            rank, world_size: this process takes the rank-th of world_size equal parts of each batch's rows.
            indices: of each source of the mixture, where there is one.
            gather: joins what the ranks could not decode, batch by batch, so that all count the same and stop together.

        Raises:
            ValueError: the rows of a batch cannot be shared out equally.
        """
        if packer.rows_per_batch % world_size:
            raise ValueError(
                f"rows_per_batch={packer.rows_per_batch} rows cannot be shared out equally among {world_size} processes"
            )
        self.stream = EncodedStream(mixture, processor, indices)
        self.packer, self.workers, self.pad_token_id = packer, workers, pad_token_id
        self.rank, self.world_size, self.gather = rank, world_size, gather
        self._place, self._unreadable = Place(), 0

    def state_dict(self) -> dict[str, int]:
        """The place after the last batch handed out, whatever the workers have read ahead: four integers.

        `unreadable` counts the samples that could be measured but not decoded, on all ranks.
        """
        return {**self._place._asdict(), "unreadable": self._unreadable}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from `state_dict`, of any rank; call before the first batch."""
        self._place = Place(state["block"], state["row"], state["bad"])
        self._unreadable = state["unreadable"]

    def steps(self) -> int:
        """Batches of the whole stream, counted on lengths alone: about 20 s for a million samples.

        Raises:
            ValueError: the stream has no end, or lengths are not known without an index.
        """
        length = self.stream.mixture.length
        if length is None:
            raise ValueError("the stream has no end to count its steps; give every source max_epochs")
        if not self.stream.indexed:
            raise ValueError("counting the steps of a stream needs an index of every source (data.index)")
        samples = (self.stream.measure(k) for k in range(length))
        fit = (one for one in samples if isinstance(one, Measured) and len(one) <= self.packer.max_seq_length)
        self.packer.restart(Place())
        return math.ceil(sum(1 for _ in self.packer.rows(fit)) / self.packer.rows_per_batch)

    def __iter__(self) -> Iterator[Batch]:
        self.packer.restart(self._place)
        schedule = Schedule(self.stream, self.packer, self.rank, self.world_size)
        answers = DataLoader(
            self.stream,
            batch_sampler=schedule,  # type: ignore[arg-type]
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            num_workers=self.workers,
            prefetch_factor=PREFETCH if self.workers else None,
            worker_init_fn=_begin,
        )
        for answer in answers:
            schedule.take(answer)
            while draft := schedule.pop():
                yield self._batch(draft)
        while draft := schedule.pop():
            yield self._batch(draft)

    def _batch(self, draft: Draft) -> Batch:
        own = [sample for sample in draft.found.values() if isinstance(sample, BadSample)]
        for bad in sorted(chain.from_iterable(self.gather(own)), key=lambda bad: bad.index):
            self.packer.tell(bad, bad.reason)
            self._unreadable += 1
            check_budget(self._unreadable, bad.index + 1, self.packer.max_bad_fraction, f"{bad.name}: {bad.reason}")
        read = [[draft.found.get(one.index, one) for one in row] for row in draft.rows]
        rows = [[one for one in row if isinstance(one, Document)] for row in read]
        length = self.packer.max_seq_length
        if self.packer.batch_by == "samples":
            rows, length = self._trimmed(rows)
        inputs = collate(rows, length, self.pad_token_id)
        documents = [document for row in rows for document in row]
        labelled = int((inputs["labels"] != IGNORE).sum())
        self._place = draft.after
        mixture = self.stream.mixture
        return Batch(
            inputs,
            names=[document.name for document in documents],
            sources=[mixture.sources[mixture.locate(document.index)[0]].name for document in documents],
            families=[document.family for document in documents],
            tokens=sum(map(len, documents)),
            labelled=labelled,
        )

    def _trimmed(self, rows: list[list[Document]]) -> tuple[list[list[Document]], int]:
        """Rows without the empty ones, which several ranks keep to have equally many, and the tokens they need."""
        if self.world_size == 1:
            rows = [row for row in rows if row] or [[]]
        longest = max(sum(map(len, row)) for row in rows)
        return rows, max(1, -(-longest // MULTIPLE)) * MULTIPLE


def build_loader(
    config: DataConfig,
    mixture: Mixture,
    processor: NeoProcessor,
    rank: int = 0,
    world_size: int = 1,
    gather: Gather = lambda own: [own],
) -> PackedLoader:
    """The loader of a recipe.

    Args:
        config: its `data`.
        mixture: what `build_mixture` made of it.
        processor: encodes messages.
        rank, world_size, gather: as in `PackedLoader`.

    Raises:
        ValueError: an index is missing or stale, or rows cannot be shared out.
    """
    shape = (config.max_seq_length, config.rows_per_batch, config.lookahead_rows, config.max_bad_fraction)
    packer = Packer(*shape, config.batch_by, mixture.epoch)
    pad = processor.tokenizer.pad_token_id or 0
    indices = open_indices(config, mixture.sources, processor)
    return PackedLoader(mixture, processor, packer, config.workers, pad, rank, world_size, indices, gather)


def _as_it_is(answer: Answer) -> Answer:
    return answer


def _begin(worker: int) -> None:
    torch.set_num_threads(1)
    # A job that is stopped is told so in all its processes; the one that trains ends its workers once it has saved.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # A run that is killed cannot end its workers, and they would wait for ever to hand over what they have read.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
