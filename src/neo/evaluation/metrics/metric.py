"""What a metric is: numbers of each answer that add up, and what their sum says.

The accuracy of some answers is the sum of their scores by their number, their character error rate the sum of edits by
the sum of lengths, and F1 another function of sums. So a metric of any group of answers, of one answer alone and of a
bootstrap's sample are all one thing: `totals` of summed `counts`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Total = Callable[[np.ndarray], np.ndarray]
"""Sums (..., k) to values (...)."""


@dataclass(frozen=True)
class Case:
    """A question's answer, and what was expected."""

    predicted: str
    expected: tuple[str, ...]
    """At least one; any of them is right."""
    choices: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    """JSON schema of the answer."""
    where: str = ""
    """The record's place, for messages."""


def ratio(sums: np.ndarray) -> np.ndarray:
    """The first sum by the last; 0 where that is 0."""
    return np.divide(sums[..., 0], sums[..., -1], out=np.zeros(sums.shape[:-1]), where=sums[..., -1] != 0)


@dataclass(frozen=True)
class Metric:
    """One way to compare answers with what was expected."""

    about: str
    """A line that tells what it is."""
    counts: Callable[[Sequence[Case]], np.ndarray]
    """Of some answers, (answers, k); raises ValueError where a record does not fit the metric."""
    total: Total = ratio
    """The metric of summed counts."""
    alone: Total | None = None
    """The metric of one answer's counts, where that is another than `total`."""
    more: Mapping[str, Total] = field(default_factory=dict)
    """Further numbers that the counts tell, by name."""
    share: bool = True
    """Whether its values are from 0 to 1, more being better, so that they can be averaged with those of others."""
    lower_is_better: bool = False

    def scores(self, counts: np.ndarray) -> np.ndarray:
        """The metric of each answer alone, (answers,)."""
        return (self.alone or self.total)(counts)


def each(score: Callable[[Case], float]) -> Callable[[Sequence[Case]], np.ndarray]:
    """Counts of a metric that is the mean of scores: (score, 1)."""

    def counts(cases: Sequence[Case]) -> np.ndarray:
        return np.array([[score(case), 1.0] for case in cases]).reshape(-1, 2)

    return counts


def any_of(score: Callable[[str, str], float]) -> Callable[[Sequence[Case]], np.ndarray]:
    """As `each`, of a score of two texts, predicted and expected: the best over all expected ones."""
    return each(lambda case: max(score(case.predicted, expected) for expected in case.expected))
