"""Batches for the training loop: worker processes read and encode ahead, the loop's process packs.

Workers only turn stream indices into documents, in order; packing happens on documents in stream order. So
the batches are the same for any number of workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from neo.data.collate import IGNORE, collate
from neo.data.mixture import Mixture
from neo.data.packing import BadSample, Document, Packer

CHUNK = 16
"""Documents that a worker hands over at once."""
PREFETCH = 4
"""Chunks that each worker keeps ready."""
_NO_PIXELS = torch.empty(0, 0)


class Encoder(Protocol):
    """The one thing that is asked of a processor."""

    def encode(self, messages: list[dict[str, Any]], *, share_pixels: bool) -> Any: ...


@dataclass(frozen=True)
class Batch:
    """One step's worth of data: this rank's rows of the global batch."""

    inputs: dict[str, torch.Tensor]
    """What `collate` made."""
    names: list[str]
    """The records in it."""
    tokens: int
    """Tokens that are not padding."""
    labelled: int
    """Tokens that carry loss."""


class EncodedStream(Dataset):
    """Stream index to document."""

    def __init__(self, mixture: Mixture, processor: Encoder) -> None:
        self.mixture, self.processor = mixture, processor

    def __getitem__(self, k: int) -> Document | BadSample:
        # Records, pictures and processing raise ValueError for bad input; anything else is a defect.
        try:
            encoded = self.processor.encode(self.mixture[k].messages, share_pixels=True)
        except ValueError as error:
            return BadSample(k, self.mixture.name(k), str(error))
        labels = encoded.labels.numpy()
        if (labels == IGNORE).all():
            return BadSample(k, self.mixture.name(k), "no token of it is an answer to learn")
        return Document(
            k,
            self.mixture.name(k),
            encoded.input_ids.numpy(),
            labels,
            encoded.pixel_values,
            encoded.image_grid_hw.numpy(),
        )


class PackedLoader:
    """Endless packed batches with a state that a run can be resumed from."""

    def __init__(
        self,
        mixture: Mixture,
        processor: Encoder,
        packer: Packer,
        workers: int = 0,
        pad_token_id: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Prepare the loader; processes start with the first batch.

        Args:
            mixture: the stream.
            processor: encodes messages.
            packer: the shape of batches.
            workers: processes that read ahead, 0 to read in this one.
            pad_token_id: what stands in padding.
            rank, world_size: this process takes the rank-th of world_size equal parts of each batch's rows.

        Raises:
            ValueError: the rows of a batch cannot be shared out equally.
        """
        if packer.rows_per_batch % world_size:
            raise ValueError(
                f"rows_per_batch={packer.rows_per_batch} rows cannot be shared out equally among {world_size} processes"
            )
        self.rank, self.world_size = rank, world_size
        self.stream = EncodedStream(mixture, processor)
        self.packer, self.workers, self.pad_token_id = packer, workers, pad_token_id

    def state_dict(self) -> dict[str, Any]:
        """State after the last batch handed out, whatever the workers have read ahead."""
        return self.packer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`; call before the first batch."""
        self.packer.load_state_dict(state)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self.packer.batches(self._documents()):
            share = self.packer.rows_per_batch // self.world_size
            rows = rows[self.rank * share : (self.rank + 1) * share]
            inputs = collate(rows, self.packer.max_seq_length, self.pad_token_id)
            documents = [document for row in rows for document in row]
            yield Batch(
                inputs,
                [document.name for document in documents],
                sum(map(len, documents)),
                int((inputs["labels"] != IGNORE).sum()),
            )

    def _documents(self) -> Iterator[Document | BadSample]:
        loader = DataLoader(
            self.stream,
            batch_sampler=_Chunks(self.packer.wanted()),  # type: ignore[arg-type]
            collate_fn=_hand_over,
            num_workers=self.workers,
            prefetch_factor=PREFETCH if self.workers else None,
            worker_init_fn=_one_thread,
        )
        for documents, pixels in loader:
            start = 0
            for document in documents:
                if isinstance(document, Document):
                    patches = int(document.image_grid_hw.prod(-1).sum())
                    document = replace(document, pixel_values=pixels[start : start + patches])
                    start += patches
                yield document


class _Chunks:
    """Stream indices in chunks, for the DataLoader."""

    def __init__(self, indices: Iterator[int]) -> None:
        self.indices = indices

    def __iter__(self) -> Iterator[list[int]]:
        while chunk := list(islice(self.indices, CHUNK)):
            yield chunk


def _hand_over(documents: list[Document | BadSample]) -> tuple[list[Document | BadSample], torch.Tensor]:
    """All pixels of a chunk as one tensor: one block of shared memory instead of one per picture."""
    pixels = [document.pixel_values for document in documents if isinstance(document, Document)]
    bare = [
        replace(document, pixel_values=_NO_PIXELS) if isinstance(document, Document) else document
        for document in documents
    ]
    return bare, torch.cat(pixels) if pixels else _NO_PIXELS


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
