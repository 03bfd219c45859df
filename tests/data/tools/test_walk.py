import pytest

from neo.data.sources import CorpusSource, Source
from neo.data.tools.walk import shares, some, walk


def look(source: Source, index: int) -> tuple[str, int]:
    return source.name, index


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order_from_any_number_of_processes(workers: int) -> None:
    sources = [CorpusSource(size=20, name="a"), CorpusSource(size=5, name="b"), CorpusSource(size=3, name="c")]
    seen: list[int] = []

    def track(items, total):
        seen.append(total)
        return items

    results = list(walk(sources, [range(20), [1, 4], []], look, workers, track))
    assert results == [*(("a", index) for index in range(20)), ("b", 1), ("b", 4)]
    assert seen == [22]


def test_an_error_in_a_process_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        list(walk([CorpusSource(size=3)], [range(3)], fail, workers=1))


def fail(source: Source, index: int) -> float:
    return 1 / 0


def test_some_are_spread_by_chance_and_never_twice() -> None:
    source = CorpusSource(size=1000)
    chosen = some(source, 100, seed=1)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 100
    assert 350 < sum(chosen) / 100 < 650
    assert chosen != some(source, 100, seed=2)
    assert some(source) == some(source, 2000) == range(1000)


@pytest.mark.parametrize(
    ("sizes", "number", "expected"),
    [((10, 10), 6, [3, 3]), ((2, 100, 100), 24, [2, 11, 11]), ((1, 1), 9, [1, 1]), ((9, 9), 1, [0, 1])],
)
def test_shares_are_as_equal_as_sizes_allow(sizes: tuple[int, ...], number: int, expected: list[int]) -> None:
    assert shares([CorpusSource(size=size) for size in sizes], number) == expected
