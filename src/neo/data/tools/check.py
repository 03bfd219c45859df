"""What is wrong with records: each is read, its pictures are decoded, and nothing is mended.

A record may be wrong in several ways and is counted in each of them, once.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from neo.data.records import NothingToLearnError, PlaceholderError, Record
from neo.data.sources import Source
from neo.data.tools.walk import Track, picture_name, some, untracked, walk, where
from neo.processing import chat
from neo.processing.picture import load_image, picture_file
from neo.processing.processor import NeoProcessor

UNREADABLE, PLACEHOLDERS, PICTURES, EMPTY, TOO_LONG, DUPLICATES = KINDS = (
    "unreadable records",
    "placeholder mismatches",
    "unreadable pictures",
    "empty answers",
    "too long",
    "duplicates",
)
"""What can be wrong. Duplicates have the turns and the bytes of pictures of an earlier record, whatever their form."""
_KIND_OF = {PlaceholderError: PLACEHOLDERS, NothingToLearnError: EMPTY}
_DIGEST = np.dtype("<u8,<u8")


@dataclass(frozen=True)
class Example:
    """A record with a problem."""

    source: str
    index: int
    """From 0."""
    message: str
    """Where it stands, and what is wrong."""


@dataclass
class Report:
    """What `check` found."""

    records: int = 0
    """How many were looked at."""
    wrong: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    """Records with a problem, by kind."""
    examples: dict[str, list[Example]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    """The first of each kind."""

    def note(self, kind: str, example: Example, most: int) -> None:
        """Count a record, and keep it as an example if there are not `most` of its kind."""
        self.wrong[kind] += 1
        if len(self.examples[kind]) < most:
            self.examples[kind].append(example)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        kinds = {
            kind: {"records": self.wrong[kind], "examples": [asdict(one) for one in self.examples[kind]]}
            for kind in KINDS
        }
        return {"records": self.records, "problems": kinds}


def check(
    sources: Sequence[Source],
    processor: NeoProcessor,
    max_seq_length: int | None = None,
    examples: int = 3,
    indices: Sequence[Sequence[int]] | None = None,
    workers: int = 0,
    track: Track = untracked,
) -> Report:
    """Look for everything in `KINDS`.

    Args:
        sources: where the records come from.
        processor: as in training; lengths depend on it.
        max_seq_length: tokens above which a record is too long; any length will do by default.
        examples: how many of each kind are named.
        indices: the records of each source; all by default.
        workers: processes; 0 is this one alone.
        track: shows the progress.
    """
    report = Report()
    chosen = [some(source) for source in sources] if indices is None else indices
    digests = bytearray()
    for looked in walk(sources, chosen, _Look(processor, max_seq_length), workers, track):
        for kind, message in looked.problems.items():
            report.note(kind, Example(looked.source, looked.index, message), examples)
        # A record that cannot be read is like no other.
        digests += looked.digest or report.records.to_bytes(_DIGEST.itemsize, "little")
        report.records += 1
    keys = np.frombuffer(digests, _DIGEST)
    order = np.lexsort((keys["f1"], keys["f0"]))  # equal ones in the order of the records
    repeated = np.sort(order[1:][keys[order[1:]] == keys[order[:-1]]])
    report.wrong[DUPLICATES] = len(repeated)
    for again in repeated[:examples].tolist():
        source, index = _locate(sources, chosen, again)
        first, first_index = _locate(sources, chosen, int(np.flatnonzero(keys == keys[again])[0]))
        message = f"{where(source[index])}: the same as {where(first[first_index])}"
        report.examples[DUPLICATES].append(Example(source.name, index, message))
    return report


@dataclass(frozen=True)
class _Looked:
    """What was found in a record."""

    source: str
    index: int
    digest: bytes | None
    problems: dict[str, str]


class _Look:
    """Looks at one record."""

    def __init__(self, processor: NeoProcessor, max_seq_length: int | None) -> None:
        self.processor, self.max_seq_length = processor, max_seq_length

    def __call__(self, source: Source, index: int) -> _Looked:
        problems: dict[str, str] = {}
        digest = None
        try:
            record = source[index]
        except ValueError as error:
            kind = next((kind for known, kind in _KIND_OF.items() if isinstance(error, known)), UNREADABLE)
            problems[kind] = str(error)
        else:
            try:
                digest = self._inspect(record, problems)
            except ValueError as error:
                problems[UNREADABLE] = f"{where(record)}: {error}"
        return _Looked(source.name, index, digest, problems)

    def _inspect(self, record: Record, problems: dict[str, str]) -> bytes | None:
        """Put what is wrong with a record that could be read into `problems`; returns its digest if it has one."""
        turns, pictures = chat.parse(record.messages)
        for number, turn in enumerate(turns, 1):
            if turn.role == "assistant" and not "".join(map(str, turn.parts)).strip():
                problems[EMPTY] = f"{where(record)}: turn {number} is an answer without words"
                break
        said = repr(list(chat.pieces(turns)))  # the same in every form
        digest = hashlib.blake2b(said.encode(), digest_size=_DIGEST.itemsize)
        for picture in pictures:
            name = picture_name(record, picture)
            try:
                data, _ = picture_file(picture, name)
                load_image(data, name)
            except ValueError as error:
                problems[PICTURES] = str(error)
                return None
            digest.update(hashlib.blake2b(data).digest())
        tokens = self.processor.measure(record.messages, share_pixels=True).tokens
        if self.max_seq_length is not None and tokens > self.max_seq_length:
            problems[TOO_LONG] = f"{where(record)}: {tokens} tokens, more than {self.max_seq_length}"
        return digest.digest()


def _locate(sources: Sequence[Source], chosen: Sequence[Sequence[int]], place: int) -> tuple[Source, int]:
    """The record that was looked at after `place` others."""
    for source, indices in zip(sources, chosen, strict=True):
        if place < len(indices):
            return source, indices[place]
        place -= len(indices)
    raise AssertionError(place)
