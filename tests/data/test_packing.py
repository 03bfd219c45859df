from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neo.data.packing import BadSample, Document, Packer


def document(index: int, length: int) -> Document:
    ids = np.full(length, index % 100 + 1)
    return Document(index, f"d[{index}]", ids, ids, torch.empty(0, 768), np.empty((0, 2), dtype=np.int64))


def endless(lengths: list[int], packer: Packer) -> Iterator[Document]:
    return (document(k, lengths[k % len(lengths)]) for k in packer.wanted())


def indices(batch: list[list[Document]]) -> list[list[int]]:
    return [[one.index for one in row] for row in batch]


@settings(deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=200), st.integers(1, 4), st.integers(1, 4))
def test_nothing_lost_nothing_split_nothing_too_full(lengths: list[int], rows: int, lookahead_rows: int) -> None:
    packer = Packer(64, rows, lookahead_rows)
    batches = list(packer.batches(document(k, length) for k, length in enumerate(lengths)))
    packed = [one for batch in batches for row in batch for one in row]
    assert sorted(one.index for one in packed) == list(range(len(lengths)))
    assert all(len(one) == lengths[one.index] for one in packed)
    assert all(sum(map(len, row)) <= 64 for batch in batches for row in batch)
    assert all(len(batch) == rows for batch in batches[:-1])


@settings(deadline=None)
@given(st.lists(st.integers(1, 64), min_size=1, max_size=50), st.integers(0, 6))
def test_resumed_equals_uninterrupted(lengths: list[int], taken: int) -> None:
    packer = Packer(64, 2, 3)
    batches = packer.batches(endless(lengths, packer))
    for _ in range(taken):
        next(batches)
    state = packer.state_dict()
    resumed = Packer(64, 2, 3)
    resumed.load_state_dict(state)
    assert state == {**state, "pool": sorted(state["pool"])}
    again = resumed.batches(endless(lengths, resumed))
    for _ in range(4):
        assert indices(next(again)) == indices(next(batches))
        assert resumed.state_dict() == packer.state_dict()


def test_no_document_waits_for_ever() -> None:
    packer = Packer(10, 1, lookahead_rows=5)
    lengths = [7, *[10] * 1000]
    first = next(packer.batches(document(k, length) for k, length in enumerate(lengths)))
    assert 0 in indices(first)[0]


def test_rows_are_full_on_log_normal_lengths() -> None:
    rng = np.random.default_rng(0)
    limit = 16_384
    lengths = [int(min(limit, max(1, length))) for length in rng.lognormal(np.log(600), 1.0, 20_000)]
    packer = Packer(limit, 1)
    rows = [row for batch in islice(packer.batches(endless(lengths, packer)), 300) for row in batch]
    fill = sum(len(one) for row in rows for one in row) / (limit * len(rows))
    assert fill > 0.97  # measured: 0.9965


def test_bad_samples_are_named_counted_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    samples = [document(0, 5), BadSample(1, "d[1]", "no picture"), document(2, 99), document(3, 4)]
    packer = Packer(10, 1, max_bad_fraction=0.02)
    (batch,) = packer.batches(samples)
    assert indices(batch) == [[0, 3]]
    assert packer.bad == 2
    assert "left out d[1]: no picture" in caplog.text
    assert "left out d[2]: 99 tokens do not fit a row of 10" in caplog.text
    with pytest.raises(ValueError, match=r"2 of the first 3 samples .* max_bad_fraction=0.01 .* d\[2\]"):
        list(Packer(10, 1, max_bad_fraction=0.01).batches(samples))


def test_a_sample_that_became_unreadable_stops_a_resumed_run() -> None:
    packer = Packer(10, 1)
    packer.load_state_dict({"next_index": 2, "pool": [1], "bad": 0})
    with pytest.raises(ValueError, match=r"d\[1\] could be read before .* gone"):
        next(packer.batches([BadSample(1, "d[1]", "gone")]))
