"""What workers are asked to do, and batches made of what they answer."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

from neo.data.packing import BadSample, Document, Measured, Packer, Place, Row
from neo.data.stream import Answer, EncodedStream, Task

CHUNK, CHUNK_TOKENS = 16, 4096
"""Samples that a worker hands over at once: so many at most, and no more when they have so many tokens."""
HELD_PATCHES = 2**18
"""Patches (3 KB each) of documents that wait for their batch. What comes on top is encoded again in its turn."""


@dataclass
class Draft:
    """A batch of which not everything is encoded yet."""

    rows: list[Row]
    """This rank's."""
    after: Place
    """The place behind the whole batch."""
    tokens: int
    """Of the whole batch."""
    todo: deque[list[Measured]]
    """Chunks that no worker has been asked for."""
    missing: int
    """Samples that no worker has answered."""
    found: dict[int, Document | BadSample]
    """Encoded samples of these rows."""


class Schedule:
    """The order in which samples are measured and encoded, for one rank.

    Iterated over, it gives the tasks, till all of a stream that ends is read. Measuring stays one block of samples
    ahead of the batches that are handed out and encoding two batches, so that neither waits for the other and
    memory stays bounded.
    """

    def __init__(self, stream: EncodedStream, packer: Packer, rank: int, world_size: int) -> None:
        self.stream, self.packer = stream, packer
        share = packer.rows_per_batch // world_size
        self.share = slice(rank * share, (rank + 1) * share)
        length, first = stream.mixture.length, packer.next_index
        self.unasked = iter(count(first) if length is None else range(first, length))
        self.unanswered = 0
        """Chunks that are being measured."""
        self.finished = False
        """All rows are made."""
        self.rows: list[tuple[Row, Place]] = []
        """Those of the next batch."""
        self.drafts: deque[Draft] = deque()
        self.encoding: dict[int, tuple[Draft, Measured]] = {}
        """Samples that are being encoded, and what for."""
        self.ahead = 0
        """Tokens of the rows that are made and not handed out."""
        self.held = 0
        """Patches of documents that wait."""

    def __iter__(self) -> Iterator[Task]:
        while True:
            drafts = self.drafts if self.stream.indexed else islice(self.drafts, 2)
            wanted = next((draft for draft in drafts if draft.todo), None)
            if wanted is not None:
                chunk = wanted.todo.popleft()
                self.encoding.update((one.index, (wanted, one)) for one in chunk)
                yield Task("encode", [one.index for one in chunk])
            elif indices := list(islice(self.unasked, CHUNK)):
                if self.stream.indexed:
                    self._measured([self.stream.measure(k) for k in indices])
                else:
                    self.unanswered += 1
                    yield Task("measure", indices)
            elif not self.finished and not self.unanswered:
                self._finish()
            elif not self.finished or any(draft.todo for draft in self.drafts):
                yield Task("rest", [])
            else:
                return

    def take(self, answer: Answer) -> None:
        """Use what a worker made."""
        start = 0
        samples: list[Document | Measured | BadSample] = []
        for sample in answer.samples:
            if isinstance(sample, Document):
                stop = start + int(sample.image_grid_hw.prod(-1).sum())
                sample, start = replace(sample, pixel_values=answer.pixels[start:stop]), stop
            samples.append(sample)
        if answer.kind == "measure":
            self.unanswered -= 1
            self._measured([self._held(sample) for sample in samples])
        for sample in samples if answer.kind == "encode" else ():
            draft, measured = self.encoding.pop(sample.index)
            assert not isinstance(sample, Measured)
            if isinstance(sample, Document) and len(sample) != len(measured):
                reason = f"{len(sample)} tokens long and not {len(measured)} as measured: have its pictures changed?"
                sample = BadSample(sample.index, sample.name, reason)
            draft.found[sample.index] = sample
            draft.missing -= 1

    def pop(self) -> Draft | None:
        """The next batch, if it is ready."""
        if not self.drafts or self.drafts[0].missing:
            return None
        # Measured as fast as handed out: otherwise there would be nothing to do now and a long wait between blocks.
        enough = self.packer.batch_by == "samples" or self.ahead + self.packer.tokens > self.packer.block_tokens
        if not (enough or self.finished or self.stream.indexed):
            return None
        draft = self.drafts.popleft()
        self.ahead -= draft.tokens
        self.held -= sum(map(_patches, draft.rows))
        return draft

    def _measured(self, samples: Sequence[Document | Measured | BadSample]) -> None:
        for sample in samples:
            self._add(self.packer.add(sample))

    def _held(self, sample: Document | Measured | BadSample) -> Document | Measured | BadSample:
        """The sample, without its pixels if there are too many of them already."""
        if not isinstance(sample, Document):
            return sample
        patches = _patches([sample])
        if patches and self.held + patches > HELD_PATCHES:
            return Measured(sample.index, sample.name, len(sample))
        self.held += patches
        return sample

    def _finish(self) -> None:
        self._add(self.packer.finish())
        if self.rows:
            self._draft(self.rows)
        self.finished = True

    def _add(self, rows: list[tuple[Row, Place]]) -> None:
        self.rows += rows
        self.ahead += sum(len(document) for row, _ in rows for document in row)
        size = self.packer.rows_per_batch
        while len(self.rows) >= size:
            self._draft(self.rows[:size])
            self.rows = self.rows[size:]

    def _draft(self, batch: list[tuple[Row, Place]]) -> None:
        rows = [row for row, _ in batch[self.share]]
        self.held -= sum(_patches(row) for row, _ in batch) - sum(map(_patches, rows))
        rows += [[] for _ in range(self.share.stop - self.share.start - len(rows))]
        unread = [document for row in rows for document in row if isinstance(document, Measured)]
        tokens = sum(len(document) for row, _ in batch for document in row)
        self.drafts.append(Draft(rows, batch[-1][1], tokens, deque(_chunks(unread)), len(unread), {}))


def _patches(row: Row) -> int:
    """Patches that the documents of a row hold."""
    return sum(len(document.pixel_values) for document in row if isinstance(document, Document))


def _chunks(unread: Sequence[Measured]) -> Iterator[list[Measured]]:
    """Samples in order, in chunks that workers encode."""
    chunk: list[Measured] = []
    for one in unread:
        if chunk and (len(chunk) == CHUNK or sum(map(len, chunk)) + len(one) > CHUNK_TOKENS):
            yield chunk
            chunk = []
        chunk.append(one)
    if chunk:
        yield chunk
