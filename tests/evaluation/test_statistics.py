"""Intervals: what they hold, and that pairs are judged as pairs."""

import numpy as np
import pytest

from neo.evaluation.metrics.metric import ratio
from neo.evaluation.statistics import bootstrap, paired_difference, percentile


def scores(*values: float) -> np.ndarray:
    return np.column_stack([values, np.ones(len(values))])


def test_a_share_has_about_the_interval_that_theory_gives() -> None:
    """80 of 100: the normal approximation says 0.8 +- 1.96 x sqrt(0.8 x 0.2 / 100) = 0.0784."""
    found = bootstrap(scores(*[1] * 80, *[0] * 20), ratio)
    assert found.value == pytest.approx(0.8)
    assert found.low == pytest.approx(0.8 - 0.078, abs=0.02)
    assert found.high == pytest.approx(0.8 + 0.078, abs=0.02)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """95 % of intervals of 60 draws hold 0.7; of 200 intervals 190 are expected, give or take 3 x 3.1."""
    chance = np.random.default_rng(1)
    found = [bootstrap(scores(*(chance.random(60) < 0.7)), ratio, seed) for seed in range(200)]
    assert 178 <= sum(one.low <= 0.7 <= one.high for one in found) <= 200


def test_a_seed_gives_the_same_interval() -> None:
    values = scores(*np.linspace(0, 1, 30))
    assert bootstrap(values, ratio, 3) == bootstrap(values, ratio, 3)
    assert bootstrap(values, ratio, 3) != bootstrap(values, ratio, 4)


def test_one_answer_is_a_point() -> None:
    assert bootstrap(scores(1), ratio) == (1, 1, 1)


def test_pairs_are_drawn_together() -> None:
    """The second is right where the first is, and on one question in ten more: no draw can show less."""
    first, second = scores(*[1] * 50, *[0] * 50), scores(*[1] * 60, *[0] * 40)
    found = paired_difference(first, second, ratio)
    assert found.value == pytest.approx(0.1)
    assert 0.03 < found.low < 0.07
    assert 0.13 < found.high < 0.18
    alone = bootstrap(second, ratio).low - bootstrap(first, ratio).high
    assert alone < 0 < found.low
    back = paired_difference(second, first, ratio)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_percentiles() -> None:
    found = percentile(np.arange(101.0), 95)
    assert found.value == 95
    assert found.low < 95 < found.high
