from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo.data.config import DataConfig, SourceConfig
from neo.data.mixture import BLOCK, Mixture, build_mixture
from neo.data.permutation import permuted
from neo.data.records import Record


class Numbers:
    """A source of numbered records."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Record:
        return Record([], self.name, index)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**64 - 1))
def test_permuted_is_a_permutation(size: int, key: int) -> None:
    assert sorted(permuted(place, size, key) for place in range(size)) == list(range(size))


def test_permutations_differ_by_key_and_shuffle() -> None:
    one, other = ([permuted(place, 1000, key) for place in range(1000)] for key in (1, 2))
    assert one != other
    assert abs(sum(one[:500]) / 500 - 499.5) < 60  # four standard deviations and more


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 50), st.integers(0, 1000))
def test_every_record_once_per_epoch(size: int, seed: int) -> None:
    mixture = Mixture([Numbers("a", size)], [1.0], seed)
    located = Counter(mixture.locate(k)[1] for k in range(BLOCK))
    # One source takes every slot of a block, in shuffled order: whole epochs, then a part of one.
    assert set(located.values()) <= {BLOCK // size, BLOCK // size + 1}


def test_epoch_is_exact_across_blocks_and_order_changes() -> None:
    size = 3 * BLOCK // 2
    mixture = Mixture([Numbers("a", size), Numbers("b", 7)], [1.0, 1.0], seed=5)
    seen = [index for k in range(6 * BLOCK) for number, index in [mixture.locate(k)] if number == 0]
    assert Counter(seen) == Counter(dict.fromkeys(range(size), 2))


def test_one_source_alone_is_walked_epoch_by_epoch() -> None:
    mixture = Mixture([Numbers("a", 7)], [1.0], seed=3, max_epochs=[200])
    epochs = [[mixture.locate(7 * epoch + place)[1] for place in range(7)] for epoch in range(200)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 100
    assert mixture.epoch == 7
    assert mixture.length == 1400
    assert Mixture([Numbers("a", 7), Numbers("b", 7)], [1.0, 1.0], seed=3).epoch is None


def test_records_that_python_holds_are_given_by_name() -> None:
    config = DataConfig({"mine": SourceConfig(kind="memory"), "drawn": SourceConfig(kind="synthetic")})
    mine = Numbers("mine", 5)
    assert build_mixture(config, 0, {"mine": mine}).sources[0] is mine
    with pytest.raises(ValueError, match="the records of source 'mine' were given in Python"):
        build_mixture(config, 0)


def test_weights_count_samples() -> None:
    mixture = Mixture([Numbers("a", 10), Numbers("b", 10), Numbers("c", 10)], [3.0, 6.0, 1.0], seed=0)
    counts = Counter(mixture.locate(k)[0] for k in range(3 * BLOCK))
    assert counts == {0: 900, 1: 1800, 2: 300}


def test_a_fixed_half_of_the_records() -> None:
    def used(seed: int) -> list[Counter]:
        mixture = Mixture([Numbers("a", 100), Numbers("b", 31)], [1.0, 1.0], seed, rates=[0.5, 0.1])
        located = [mixture.locate(k) for k in range(BLOCK)]
        return [Counter(index for number, index in located if number == wanted) for wanted in (0, 1)]

    a, b = used(seed=1)
    assert set(a.values()) == {10}
    assert len(a) == 50
    assert 10 < sum(index < 50 for index in a) < 40
    assert len(b) == 3
    assert [set(one) for one in used(seed=2)] == [set(a), set(b)]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.integers(1, 900), st.integers(1, 2), st.floats(0.5, 5)), min_size=1, max_size=3),
    st.integers(0, 9),
)
def test_capped_sources_are_used_up_exactly_and_the_stream_ends(sources: list, seed: int) -> None:
    sizes, epochs, weights = zip(*sources, strict=True)
    mixture = Mixture([Numbers(str(n), size) for n, size in enumerate(sizes)], weights, seed, max_epochs=epochs)
    assert mixture.length == sum(size * times for size, times in zip(sizes, epochs, strict=True))
    used = Counter(mixture.locate(k) for k in range(mixture.length))
    expected = {(n, index): epochs[n] for n, size in enumerate(sizes) for index in range(size)}
    assert used == expected
    with pytest.raises(IndexError, match=f"ends after {mixture.length} samples"):
        mixture.locate(mixture.length)


def test_a_used_up_source_leaves_its_place_to_the_others() -> None:
    sources = [Numbers("a", 650), Numbers("b", 10), Numbers("c", 10)]
    mixture = Mixture(sources, [3.0, 6.0, 1.0], seed=0, max_epochs=[1, None, None])
    assert mixture.length is None
    counts = [Counter(mixture.locate(k)[0] for k in range(start, start + BLOCK)) for start in (0, BLOCK)]
    assert counts == [{0: 300, 1: 600, 2: 100}] * 2
    rest = Counter(mixture.locate(k)[0] for k in range(2 * BLOCK, 2 * BLOCK + 750))
    assert rest == {0: 50, 1: 600, 2: 100}  # the last block with it is a short one
    after = Counter(mixture.locate(k)[0] for k in range(2 * BLOCK + 750, 3 * BLOCK + 750))
    assert after == {1: 857, 2: 143}


def test_before_the_first_source_is_used_up_caps_change_nothing() -> None:
    sources = [Numbers("a", 700), Numbers("b", 900)]
    free, capped = (Mixture(sources, [1.0, 2.0], 3, max_epochs=cap) for cap in ((), (2, 2)))
    assert [free.locate(k) for k in range(2000)] == [capped.locate(k) for k in range(2000)]


def test_pure_function_of_seed_and_place() -> None:
    def names(seed: int) -> list[str]:
        mixture = Mixture([Numbers("a", 100), Numbers("b", 100)], [1.0, 1.0], seed)
        return [mixture.name(k) for k in range(50)]

    assert names(1) == names(1) != names(2)
    mixture = Mixture([Numbers("a", 100)], [1.0], 1)
    assert mixture[70].name == mixture.name(70)


@pytest.mark.parametrize(
    ("sizes", "weights", "words"),
    [
        ([], [], "at least one"),
        ([5], [0.0], "'s0' must be above 0, not 0.0"),
        ([0], [1.0], "'s0' is empty"),
        ([5, 5], [1.0, 1e-6], "below 1/1000"),
    ],
)
def test_errors(sizes: list[int], weights: list[float], words: str) -> None:
    sources = [Numbers(f"s{number}", size) for number, size in enumerate(sizes)]
    with pytest.raises(ValueError, match=words):
        Mixture(sources, weights, 0)


def test_names_must_differ() -> None:
    with pytest.raises(ValueError, match="same name"):
        Mixture([Numbers("a", 1), Numbers("a", 2)], [1.0, 2.0], 0)
