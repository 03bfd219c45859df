"""The training stream: an endless order of samples over weighted sources.

Sample k is a pure function of (seed, k): no state, no dependence on workers. Every block of `BLOCK` samples
holds each source in proportion to its weight, shuffled; each source is walked in a new order in each of its
epochs, every record of an epoch exactly once.
"""

from collections.abc import Mapping, Sequence

from neo.data.records import Record
from neo.data.sources import Source

BLOCK = 1000
"""Samples over which the weights hold exactly; weights are therefore resolved to one in a thousand."""
_MASK = (1 << 64) - 1


class Mixture:
    """Weighted sources as one endless stream; weights count samples."""

    def __init__(self, sources: Sequence[Source], weights: Sequence[float], seed: int) -> None:
        """Plan the stream.

        Raises:
            ValueError: no source, an empty one, or a weight not positive or too small beside the others.
        """
        if not sources or len(sources) != len(weights):
            raise ValueError(f"a mixture needs one weight per source and at least one, got {len(sources)} sources")
        for source, weight in zip(sources, weights, strict=True):
            if not 0 < weight < float("inf"):
                raise ValueError(f"the weight of source {source.name!r} must be above 0, not {weight}")
            if not len(source):
                raise ValueError(f"the source {source.name!r} is empty")
        self.sources, self.seed = list(sources), seed
        self._counts = _shares({source.name: weight for source, weight in zip(sources, weights, strict=True)})
        if len(self._counts) != len(self.sources):
            raise ValueError("two sources of a mixture have the same name")

    def locate(self, k: int) -> tuple[int, int]:
        """Sample k of the stream: the number of its source and the index in that source."""
        block, place = divmod(k, BLOCK)
        slot = permuted(place, BLOCK, _mix(self.seed, block))
        number = 0
        while slot >= self._counts[number]:
            slot -= self._counts[number]
            number += 1
        epoch, place = divmod(block * self._counts[number] + slot, len(self.sources[number]))
        return number, permuted(place, len(self.sources[number]), _mix(_mix(self.seed, number + 1), epoch))

    def __getitem__(self, k: int) -> Record:
        number, index = self.locate(k)
        return self.sources[number][index]

    def name(self, k: int) -> str:
        """How messages name sample k."""
        number, index = self.locate(k)
        return f"{self.sources[number].name}[{index}]"


def permuted(place: int, size: int, key: int) -> int:
    """Where a permutation of `range(size)`, chosen by `key`, sends `place`; without holding the permutation.

    A Feistel network permutes the next power of four; places that land outside are sent on until inside.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low = (1 << half) - 1
    while True:
        left, right = place >> half, place & low
        for turn in range(4):
            left, right = right, left ^ (_mix(key + turn, right) & low)
        place = left << half | right
        if place < size:
            return place


def _mix(key: int, value: int) -> int:
    """Scatter two numbers to 64 bits (the finaliser of splitmix64)."""
    x = (key * 0x9E3779B97F4A7C15 + value * 0xD1B54A32D192ED03 + 0x2545F4914F6CDD1D) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


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
