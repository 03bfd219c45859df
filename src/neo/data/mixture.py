"""The training stream: an order of samples over weighted sources, endless unless all of them have an end.

Sample k is a pure function of (seed, k): no state, no memory, no dependence on workers or ranks. Every block of
`BLOCK` samples holds each source in proportion to its weight, shuffled; each source is walked in a new order in
each of its epochs, every record of an epoch exactly once; one source alone is walked epoch by epoch. A source with
`max_epochs` leaves the stream once it is used up, and the others share its place by their weights; when none is
left the stream ends.
"""

import logging
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from neo.data.config import DataConfig, SourceConfig
from neo.data.index import Index, index_folder
from neo.data.permutation import mix, permuted
from neo.data.records import Record
from neo.data.sources import Source, open_source

logger = logging.getLogger(__name__)

BLOCK = 1000
"""Samples over which the weights hold exactly; weights are therefore resolved to one in a thousand."""
_SAMPLE_KEY = 0x5A3C
"""Chooses the records of a source with `sample` below 1, whatever the seed: in every run and stage the same ones."""


@dataclass(frozen=True)
class _Stretch:
    """Blocks of the stream that hold the same number of samples of each source."""

    start: int
    """k of its first sample."""
    first_block: int
    """Blocks before it."""
    counts: list[int]
    """Samples of each source in a block."""
    used: list[int]
    """Samples of each source before it."""

    @property
    def size(self) -> int:
        return sum(self.counts)


class Mixture:
    """Weighted sources as one stream; weights count samples."""

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        seed: int,
        rates: Sequence[float] = (),
        max_epochs: Sequence[int | None] = (),
    ) -> None:
        """Plan the stream.

        Args:
            sources: where records come from; their names differ.
            weights: one for each source.
            seed: chooses the order.
            rates: share of each source's records that is used, all by default.
            max_epochs: how often each of these is used at most, any number of times by default.

        Raises:
            ValueError: no source, an empty one, or a weight not positive or too small beside the others.
        """
        if not sources or len(sources) != len(weights):
            raise ValueError(f"a mixture needs one weight per source and at least one, got {len(sources)} sources")
        if len({source.name for source in sources}) != len(sources):
            raise ValueError("two sources of a mixture have the same name")
        for source, weight in zip(sources, weights, strict=True):
            if not 0 < weight < float("inf"):
                raise ValueError(f"the weight of source {source.name!r} must be above 0, not {weight}")
            if not len(source):
                raise ValueError(f"the source {source.name!r} is empty")
        self.sources, self.seed = list(sources), seed
        rates = rates or [1.0] * len(sources)
        self._sizes = [max(1, round(len(source) * rate)) for source, rate in zip(sources, rates, strict=True)]
        caps = [
            epochs and epochs * size
            for epochs, size in zip(max_epochs or [None] * len(sources), self._sizes, strict=True)
        ]
        self._plan(dict(zip((source.name for source in sources), weights, strict=True)), caps)

    def _plan(self, weights: dict[str, float], caps: list[int | None]) -> None:
        """Lay out the stretches; `self.length` is the number of samples in all, None without end."""
        names = list(weights)
        used = [0] * len(names)
        start = block = 0
        self._stretches: list[_Stretch] = []
        self.length: int | None = None

        def lay(counts: list[int], blocks: int) -> None:
            nonlocal start, block, used
            self._stretches.append(_Stretch(start, block, counts, used))
            start, block = start + blocks * sum(counts), block + blocks
            used = [before + blocks * count for before, count in zip(used, counts, strict=True)]

        while left := [i for i, cap in enumerate(caps) if cap is None or used[i] < cap]:
            shares = _shares({names[i]: weights[names[i]] for i in left})
            counts = [0] * len(names)
            for i, count in zip(left, shares, strict=True):
                counts[i] = count
            ends = {i: cap - used[i] for i in left if (cap := caps[i]) is not None}
            if not ends:
                self._stretches.append(_Stretch(start, block, counts, used))
                return
            if whole := min(rest // counts[i] for i, rest in ends.items()):
                lay(counts, whole)
            if all(used[i] < caps[i] for i in ends):  # type: ignore[operator]
                # One block more, with what is left of the sources that do not fill theirs.
                rest = [
                    count if cap is None else cap - before
                    for count, cap, before in zip(counts, caps, used, strict=True)
                ]
                lay([min(count, left) for count, left in zip(counts, rest, strict=True)], 1)
            gone = [names[i] for i in ends if used[i] == caps[i]]
            logger.info("%s used up after %d samples of the stream", ", ".join(gone), start)
        self.length = start

    @property
    def epoch(self) -> int | None:
        """Samples of an epoch; None with several sources, each of which has its own."""
        return self._sizes[0] if len(self.sources) == 1 else None

    def locate(self, k: int) -> tuple[int, int]:
        """Sample k of the stream: the number of its source and the index in that source.

        Raises:
            IndexError: the stream ends before k.
        """
        if self.length is not None and k >= self.length:
            raise IndexError(f"the stream ends after {self.length} samples")
        stretch = self._stretches[bisect_right(self._stretches, k, key=lambda stretch: stretch.start) - 1]
        block, place = divmod(k - stretch.start, stretch.size)
        slot = place
        if len(self.sources) > 1:
            slot = permuted(place, stretch.size, mix(self.seed, stretch.first_block + block))
        number = 0
        while slot >= stretch.counts[number]:
            slot -= stretch.counts[number]
            number += 1
        use = stretch.used[number] + block * stretch.counts[number] + slot
        size, records = self._sizes[number], len(self.sources[number])
        epoch, place = divmod(use, size)
        index = permuted(place, size, mix(mix(self.seed, number + 1), epoch))
        return number, index if size == records else permuted(index, records, _SAMPLE_KEY)

    def __getitem__(self, k: int) -> Record:
        number, index = self.locate(k)
        return self.sources[number][index]

    def name(self, k: int) -> str:
        """How messages name sample k."""
        number, index = self.locate(k)
        return f"{self.sources[number].name}[{index}]"


def build_mixture(config: DataConfig, seed: int, given: Mapping[str, Source] | None = None) -> Mixture:
    """The training stream of a recipe.

    Args:
        config: its `data`.
        seed: chooses the order.
        given: sources of kind memory, by name.

    Raises:
        ValueError: a source cannot be opened or has no index where the recipe has them, or weights count tokens and a
            source's mean length is not known.
    """
    for name, source in config.sources.items() if config.index is not None else ():
        if source.path is not None:
            Index(index_folder(config, name))  # raises before files are read, and folders made beside it
    return Mixture(
        open_sources(config, given),
        [_weight(name, source, config) for name, source in config.sources.items()],
        seed,
        [source.sample for source in config.sources.values()],
        [source.max_epochs for source in config.sources.values()],
    )


def open_sources(config: DataConfig, given: Mapping[str, Source] | None = None, workers: int = 0) -> list[Source]:
    """The sources of a recipe, in order. Beside an index is kept where records begin in their files, too.

    Args:
        config: the recipe's `data`.
        given: those of kind memory, by name.
        workers: as in `open_source`.

    Raises:
        ValueError: a source cannot be opened.
    """
    sources = []
    for name, source in config.sources.items():
        if given and name in given:
            sources.append(given[name])
            continue
        if config.index is not None and source.index_dir is None:
            source = replace(source, index_dir=str(index_folder(config, name)))
        sources.append(open_source(source, name, workers))
    return sources


def _weight(name: str, source: SourceConfig, config: DataConfig) -> float:
    """Weight of a source in samples."""
    if config.weight_by == "samples":
        return source.weight
    mean = source.mean_tokens
    if mean is None and config.index is not None:
        mean = Index(index_folder(config, name)).mean_tokens
    if mean is None:
        raise ValueError(
            f"weight_by=tokens needs to know how long the records of {name!r} are: give data.index, or mean_tokens"
        )
    return source.weight / mean


def _shares(weights: Mapping[str, float]) -> list[int]:
    """Samples of each source in a block, by largest remainder."""
    total = sum(weights.values())
    exact = [weight / total * BLOCK for weight in weights.values()]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: BLOCK - sum(counts)]:
        counts[i] += 1
    for (name, weight), count in zip(weights.items(), counts, strict=True):
        if not count:
            raise ValueError(f"the weight {weight} of source {name!r} is below 1/{BLOCK} of all weights ({total})")
    return counts
