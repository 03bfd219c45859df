"""How sure a number is: bootstrap intervals of 95 %, of one model's answers and of the difference between two."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from neo.evaluation.metrics.metric import Total

SAMPLES = 1000
LEVELS = (2.5, 97.5)
"""Percentiles of the bootstrap's values between which 95 % of them are."""


class Estimate(NamedTuple):
    """A number and the interval that holds 95 % of what other questions of the same kind would have given."""

    value: float
    low: float
    high: float


def bootstrap(counts: np.ndarray, total: Total, seed: int = 0) -> Estimate:
    """A metric of some answers.

    The interval is the percentile bootstrap over questions (Efron, 1979): they are drawn again with repetition, 1000
    times. The same seed gives the same interval. Where all answers are right, so are all draws: the interval is a point
    then, however few they are.

    Args:
        counts: (answers, k), at least one answer; what the metric counts of each.
        total: the metric of summed counts.
        seed: which draws.
    """
    return _estimate(total, counts, seed)


def paired_difference(first: np.ndarray, second: np.ndarray, total: Total, seed: int = 0) -> Estimate:
    """By how much the second of two models is above the first on the same questions.

    Both are drawn with the same questions, so that what is hard for both does not blur the difference.

    Args:
        first, second: (answers, k) of the same questions in the same order.
        total: the metric of summed counts.
        seed: which draws.
    """
    k = first.shape[1]
    both = np.concatenate([first, second], axis=1)
    return _estimate(lambda sums: total(sums[..., k:]) - total(sums[..., :k]), both, seed)


def percentile(values: np.ndarray, level: float, seed: int = 0) -> Estimate:
    """A percentile of some numbers, (n,), with its bootstrap interval."""
    chance, number = np.random.default_rng(seed), len(values)
    found = [np.percentile(values[chance.integers(number, size=number)], level) for _ in range(SAMPLES)]
    low, high = np.percentile(found, LEVELS)
    return Estimate(float(np.percentile(values, level)), float(low), float(high))


def _estimate(statistic: Callable[[np.ndarray], np.ndarray], counts: np.ndarray, seed: int) -> Estimate:
    chance, number = np.random.default_rng(seed), len(counts)
    sums = np.stack([counts[chance.integers(number, size=number)].sum(0) for _ in range(SAMPLES)])
    low, high = np.percentile(statistic(sums), LEVELS)
    return Estimate(float(statistic(counts.sum(0))), float(low), float(high))
