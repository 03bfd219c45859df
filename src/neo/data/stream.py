"""Samples of the stream measured, and made to documents: what worker processes do.

A length comes from a source's index, or else from the record and the heads of its picture files. A record without
picture files (text, or a picture that is drawn) costs as much to measure as to encode and is encoded at once.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Protocol

import torch
from PIL import Image
from torch.utils.data import Dataset

from neo.data.index import NOTHING_TO_LEARN, Index
from neo.data.mixture import Mixture
from neo.data.packing import BadSample, Document, Measured
from neo.data.records import Record
from neo.model.config import IGNORE
from neo.processing import chat

_NO_PIXELS = torch.empty(0, 0)


class Encoder(Protocol):
    """What is asked of a processor."""

    def encode(self, messages: list[dict[str, Any]], *, share_pixels: bool) -> Any: ...

    def measure(self, messages: list[dict[str, Any]], *, share_pixels: bool) -> Any: ...


class Task(NamedTuple):
    """What a worker is asked to do with samples of the stream; `rest` keeps the order of answers."""

    kind: Literal["measure", "encode", "rest"]
    indices: list[int]


class Answer(NamedTuple):
    """What became of a task, and the pixels of its documents in one tensor."""

    kind: Literal["measure", "encode", "rest"]
    samples: list[Document | Measured | BadSample]
    pixels: torch.Tensor


class EncodedStream(Dataset):
    """Samples of the stream as documents, or only measured."""

    def __init__(self, mixture: Mixture, processor: Encoder, indices: Sequence[Index | None] = ()) -> None:
        """Join what samples are made from.

        Args:
            mixture: the stream.
            processor: encodes messages.
            indices: of each source of the mixture, where there is one.
        """
        self.mixture, self.processor = mixture, processor
        self.indices = list(indices) or [None] * len(mixture.sources)

    @property
    def indexed(self) -> bool:
        """Whether all lengths are known without reading a record."""
        return None not in self.indices

    def __getitem__(self, k: int) -> Document | BadSample:
        """Sample k as a document."""
        name = self.mixture.name(k)
        # Records, pictures and processing raise ValueError for bad input; anything else is a defect.
        try:
            record = self.mixture[k]
        except ValueError as error:  # it says itself where the record stands
            return BadSample(k, name, str(error))
        return self._encode(k, name, record)

    def measure(self, k: int) -> Document | Measured | BadSample:
        """Sample k measured, or as a document where that takes no more work."""
        number, place = self.mixture.locate(k)
        source, index = self.mixture.sources[number], self.indices[number]
        name = f"{source.name}[{place}]"
        if index is not None:
            problem = index.problem(place)
            return BadSample(k, name, problem) if problem else Measured(k, name, index.tokens(place))
        try:
            record = source[place]
        except ValueError as error:
            return BadSample(k, name, str(error))
        try:
            if all(isinstance(image, Image.Image) for image in chat.parse(record.messages).images):
                return self._encode(k, name, record)
            measured = self.processor.measure(record.messages, share_pixels=True)
        except ValueError as error:
            return BadSample(k, name, record.problem(error))
        if not measured.labelled:
            return BadSample(k, name, record.problem(NOTHING_TO_LEARN))
        return Measured(k, name, measured.tokens)

    def __getitems__(self, task: Task) -> Answer:
        do = self.measure if task.kind == "measure" else self.__getitem__
        samples = [do(k) for k in task.indices]
        pixels = [sample.pixel_values for sample in samples if isinstance(sample, Document)]
        # All pixels as one tensor: one block of shared memory instead of one for each picture.
        bare = [replace(one, pixel_values=_NO_PIXELS) if isinstance(one, Document) else one for one in samples]
        return Answer(task.kind, bare, torch.cat(pixels) if pixels else _NO_PIXELS)

    def _encode(self, k: int, name: str, record: Record) -> Document | BadSample:
        try:
            encoded = self.processor.encode(record.messages, share_pixels=True)
        except ValueError as error:
            return BadSample(k, name, record.problem(error))
        labels = encoded.labels.numpy()
        if (labels == IGNORE).all():
            return BadSample(k, name, record.problem(NOTHING_TO_LEARN))
        grids = encoded.image_grid_hw.numpy()
        return Document(k, name, encoded.input_ids.numpy(), labels, encoded.pixel_values, grids, record.family)
