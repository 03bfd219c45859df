"""Going over the records of sources, in several processes, with the results in order."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from neo.data.permutation import permuted
from neo.data.records import Record
from neo.data.sources import Source

T = TypeVar("T")

CHUNK = 8
"""Records that a process hands over at once."""


class Track(Protocol):
    """What shows how far a loop is: it gives the items on, one by one."""

    def __call__(self, items: Iterable[Any], total: int, /) -> Iterable[Any]: ...


def untracked(items: Iterable[Any], total: int, /) -> Iterable[Any]:
    """Show nothing."""
    return items


def some(source: Source, number: int | None = None, seed: int = 0) -> Sequence[int]:
    """The indices of all records of a source, or of `number` of them, spread by chance; in order."""
    if number is None or number >= len(source):
        return range(len(source))
    return sorted(permuted(place, len(source), seed) for place in range(number))


def shares(sources: Sequence[Source], number: int) -> list[int]:
    """So many records of each source that they are `number` in all, and as equal as the sources' sizes allow."""
    taken = [0] * len(sources)
    by_size = sorted(range(len(sources)), key=lambda place: len(sources[place]))
    for left, place in zip(range(len(sources), 0, -1), by_size, strict=True):
        taken[place] = min(len(sources[place]), (number - sum(taken)) // left)
    return taken


def walk(
    sources: Sequence[Source],
    indices: Sequence[Sequence[int]],
    look: Callable[[Source, int], T],
    workers: int = 0,
    track: Track = untracked,
) -> Iterator[T]:
    """What `look` makes of records, source by source.

    Args:
        sources: where the records come from.
        indices: those of each source, as `some` gives them.
        look: called with a source and an index, in any process.
        workers: processes; 0 is this one alone.
        track: shows the progress.
    """
    parts = [_Looks(source, places, look) for source, places in zip(sources, indices, strict=True)]
    records: ConcatDataset = ConcatDataset([part for part in parts if len(part)])
    loader = DataLoader(
        records,
        batch_size=CHUNK,
        collate_fn=list,
        num_workers=workers,
        worker_init_fn=_one_thread,
        prefetch_factor=4 if workers else None,
    )
    yield from track((result for results in loader for result in results), len(records))


def where(record: Record) -> str:
    """What people call a record: its place in its file, or its number in its source."""
    return record.where or record.name


def picture_name(record: Record, picture: Any) -> str:
    """What people call a picture of a record."""
    is_path = isinstance(picture, str) and not picture.startswith("data:")
    return f"{where(record)}: {picture if is_path else 'a picture'}"


class _Looks(Dataset):
    """What `look` makes of some records of a source."""

    def __init__(self, source: Source, indices: Sequence[int], look: Callable[[Source, int], Any]) -> None:
        self.source, self.indices, self.look = source, indices, look

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Any:
        return self.look(self.source, self.indices[place])


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
