"""Rows of predictions to what each metric says of them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neo.evaluation.metrics import ACCURACY, METRICS, Case, Metric, each

Row = dict[str, Any]
"""A question, what was expected and what was answered: a line of predictions.jsonl."""
MEAN = Metric("share of right answers, each by its record's own metric", each(lambda case: 0.0))


@dataclass(frozen=True)
class Scored:
    """One metric of those rows that it is asked of."""

    metric: Metric
    places: list[int]
    """Which rows."""
    counts: np.ndarray
    """(rows, k), see `Metric`."""
    scores: np.ndarray
    """(rows,), the metric of each alone."""


def own_metric(metric: str, choices: Sequence[str]) -> str:
    """By what a record is right: the metric it names, or else choice where there are choices, or else match."""
    return metric or ("choice" if choices else "match")


def score(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Scored]:
    """What metrics say of rows, by name; `accuracy` first.

    Args:
        rows: predictions.
        names: of metrics, or `accuracy`: each record's own. Those that records name themselves, and those that cannot
            be averaged with others, come under their own name, too.

    Raises:
        ValueError: a record does not fit a metric; the sentence names its place.
    """
    cases = [_case(row) for row in rows]
    found = {name: _scored(METRICS[name], range(len(rows)), cases) for name in names if name in METRICS}
    if ACCURACY not in names:
        return found
    by_own: Mapping[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        by_own[own_metric(row["metric"], row["choices"])].append(place)
    accuracy: list[tuple[int, float]] = []
    named = {}
    for name, places in by_own.items():
        scored = _scored(METRICS[name], places, cases)
        if METRICS[name].share:
            accuracy += zip(places, scored.scores.tolist(), strict=True)
        own = [place for place in places if rows[place]["metric"]]
        if name not in found and (own or not METRICS[name].share):
            named[name] = scored if len(own) == len(places) else _scored(METRICS[name], own, cases)
    if accuracy:
        order, scores = zip(*sorted(accuracy), strict=True)
        values = np.array(scores)
        mean = Scored(MEAN, list(order), np.column_stack([values, np.ones(len(values))]), values)
        found = {ACCURACY: mean} | found
    return found | named


def _scored(metric: Metric, places: Sequence[int], cases: Sequence[Case]) -> Scored:
    counts = metric.counts([cases[place] for place in places])
    return Scored(metric, list(places), counts, metric.scores(counts))


def _case(row: Row) -> Case:
    return Case(row["answer"], tuple(row["expected"]), tuple(row["choices"]), row.get("schema"), row["where"])
