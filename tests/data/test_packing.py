import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neo.data.packing import BadSample, Measured, Packer, Place, Row, best_fit


def measured(k: int, tokens: int) -> Measured:
    return Measured(k, f"d[{k}]", tokens)


def stream(lengths: list[int]) -> list[Measured]:
    return [measured(k, tokens) for k, tokens in enumerate(lengths)]


def indices(rows: list[Row]) -> list[list[int]]:
    return [[one.index for one in row] for row in rows]


def placed(packer: Packer, samples: list[Measured]) -> list[tuple[Row, Place]]:
    found = [one for sample in samples for one in packer.add(sample)]
    return found + packer.finish()


LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=200)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9))
def test_nothing_lost_nothing_split_nothing_too_full(lengths: list[int], lookahead_rows: int) -> None:
    rows = list(Packer(64, 1, lookahead_rows).rows(stream(lengths)))
    assert sorted(k for row in indices(rows) for k in row) == list(range(len(lengths)))
    assert all(len(one) == lengths[one.index] for row in rows for one in row)
    assert all(0 < sum(map(len, row)) <= 64 for row in rows)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9), st.data())
def test_gone_on_from_any_place_the_same_rows_come(
    lengths: list[int], lookahead_rows: int, data: st.DataObject
) -> None:
    whole = placed(Packer(64, 1, lookahead_rows), stream(lengths))
    number = data.draw(st.integers(0, len(whole) - 1))
    place = whole[number][1]
    packer = Packer(64, 1, lookahead_rows)
    packer.restart(place)
    assert placed(packer, stream(lengths)[place.block :]) == whole[number + 1 :]


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9))
def test_no_document_waits_longer_than_a_block(lengths: list[int], lookahead_rows: int) -> None:
    """Rows of one block hold a run of consecutive samples, so what is read ahead is bounded."""
    taken = 0
    for row, after in placed(Packer(64, 1, lookahead_rows), stream(lengths)):
        assert all(taken <= one.index for one in row)
        taken = after.block
    assert taken == len(lengths)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 60))
def test_batches_by_samples(lengths: list[int], size: int, epoch: int) -> None:
    """So many consecutive samples a batch, fewer only at the end of an epoch, in rows that are filled up to `size`."""
    whole = placed(Packer(64, size, batch_by="samples", epoch=epoch), stream(lengths))
    batches = [[row for row, _ in whole[start : start + size]] for start in range(0, len(whole), size)]
    samples = [sorted(k for row in indices(batch) for k in row) for batch in batches]
    ends = [*range(epoch, len(lengths), epoch), len(lengths)]
    epochs = [range(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]
    assert samples == [list(one[start : start + size]) for one in epochs for start in range(0, len(one), size)]
    for batch in batches:
        assert len(batch) == size
        assert all(sum(map(len, row)) <= 64 for row in batch)
    for number in range(size - 1, len(whole) - 1, size):
        packer = Packer(64, size, batch_by="samples", epoch=epoch)
        packer.restart(whole[number][1])
        assert placed(packer, stream(lengths)[whole[number][1].block :]) == whole[number + 1 :]


def test_ranks_have_equal_parts_of_the_rows_of_a_batch_by_samples() -> None:
    rows = list(Packer(64, 8, batch_by="samples").rows(stream([40] * 4 + [8] * 4)))
    assert [bool(row) for row in rows] == [True, False] * 4


def test_best_fit() -> None:
    rows = best_fit(stream([3, 7, 5, 5, 4, 6]), 10)
    assert indices(rows) == [[1, 0], [5, 4], [2, 3]]


def test_rows_of_a_block_are_shuffled() -> None:
    """Unshuffled, every block would begin with its long documents and end with its short ones."""
    rng = np.random.default_rng(0)
    rows = list(Packer(1000, 1, 64).rows(stream(rng.integers(1, 1000, 128).tolist())))
    sizes = [len(row) for row in rows]
    assert sizes != sorted(sizes)
    half = len(sizes) // 2
    assert abs(sum(sizes[:half]) - sum(sizes[half:])) < 20  # of 128 samples; unshuffled 40


def test_rows_are_full_on_log_normal_lengths() -> None:
    limit = 16_384
    lengths = np.random.default_rng(0).lognormal(np.log(600), 1.0, 20_000).clip(1, limit).astype(int).tolist()
    rows = list(Packer(limit, 1).rows(stream(lengths)))
    assert sum(lengths) / (limit * len(rows)) > 0.99  # measured: 0.9957


def test_bad_samples_are_named_counted_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    samples = [measured(0, 5), BadSample(1, "d[1]", "no picture"), measured(2, 99), measured(3, 4)]
    packer = Packer(10, 1, max_bad_fraction=0.02)
    assert indices(list(packer.rows(samples))) == [[0, 3]]
    assert packer.bad == 2
    assert "left out d[1]: no picture" in caplog.text
    assert "left out d[2]: 99 tokens do not fit a row of 10" in caplog.text
    with pytest.raises(ValueError, match=r"2 of the first 3 samples .* max_bad_fraction=0.01 .* d\[2\]"):
        list(Packer(10, 1, max_bad_fraction=0.01).rows(samples))


def test_bad_samples_are_named_in_the_first_epoch_alone(caplog: pytest.LogCaptureFixture) -> None:
    samples = [BadSample(k, f"d[{k % 3}]", "gone") if k % 3 == 1 else measured(k, 5) for k in range(9)]
    packer = Packer(10, 2, max_bad_fraction=0.1, batch_by="samples", epoch=3)
    assert sum(map(len, packer.rows(samples))) == 6
    assert packer.bad == 3
    assert caplog.messages == ["left out d[1]: gone"]


def test_bad_samples_of_a_block_are_counted_once_when_it_is_packed_again() -> None:
    samples = [BadSample(0, "d[0]", "gone"), *stream([6] * 9)[1:4], BadSample(4, "d[4]", "gone"), *stream([6] * 9)[5:]]
    first = Packer(10, 1, 2, max_bad_fraction=1)
    rows = [one for sample in samples for one in first.add(sample)]
    places = [place for _, place in rows]
    assert places[:3] == [Place(0, 1, 0), Place(0, 2, 0), Place(5, 0, 2)]
    again = Packer(10, 1, 2, max_bad_fraction=1)
    again.restart(places[1])
    assert [one for sample in samples for one in again.add(sample)] == rows[2:]
    assert again.bad == first.bad == 2
