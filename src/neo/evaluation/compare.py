"""Two evaluations of the same questions: the difference with its interval, and the records that changed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from neo.evaluation.metrics import ACCURACY, METRICS
from neo.evaluation.result import Result, read_result
from neo.evaluation.scoring import Scored, score
from neo.evaluation.statistics import paired_difference
from neo.evaluation.summary import cell

SHOWN = 20
"""Changed records in the table."""


def compare(first: str | Path, second: str | Path) -> dict[str, Any]:
    """By how much the second of two evaluations is above the first.

    Args:
        first, second: folders that `evaluate` wrote, of the same questions.

    Returns:
        `first` and `second`, the models; `metrics` by name, of those that both have: {"first", "second", "difference",
        "low", "high", "questions"}, the interval being one of 95 % of the paired difference; `changed`, the records
        whose score by the first of these metrics differs, those that became worse first.

    Raises:
        ValueError: a folder holds no evaluation, or they are not of the same questions or metrics.
    """
    one, other = read_result(first), read_result(second)
    if one.summary["about"]["questions"] != other.summary["about"]["questions"]:
        raise ValueError(
            f"{first} and {second} hold answers to different questions; evaluate both on the same test set"
        )
    pairs = _pairs(one, other)
    if not pairs:
        raise ValueError(f"{first} and {second} have no metric in common; evaluate both with the same --metrics")
    metrics = {}
    for name, (before, after) in pairs.items():
        metric, more = before.metric, before.metric.more
        for label, total in {name: metric.total, **{f"{name}.{key}": value for key, value in more.items()}}.items():
            estimate = paired_difference(before.counts, after.counts, total)
            metrics[label] = {
                "first": float(total(before.counts.sum(0))),
                "second": float(total(after.counts.sum(0))),
                "difference": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "questions": len(before.places),
            }
    return {
        "first": one.summary["model"],
        "second": other.summary["model"],
        "data": one.summary["data"],
        "metrics": metrics,
        "changed": _changed(one, other, *next(iter(pairs.values()))),
    }


def comparison_table(found: dict[str, Any]) -> str:
    """`compare` in Markdown."""
    lines = [
        f"# {found['second']} against {found['first']} on {found['data']}\n",
        "| metric | questions | first | second | difference (95 % interval) |\n|---|---:|---:|---:|---:|",
    ]
    for name, one in found["metrics"].items():
        cells = [f"{one[key]:.4g}" for key in ("first", "second")]
        interval = f"{one['difference']:+.4g} ({one['low']:+.4g} to {one['high']:+.4g})"
        lines.append(f"| {name} | {one['questions']} | {' | '.join(cells)} | {interval} |")
    changed = found["changed"]
    worse = sum(one["second_score"] < one["first_score"] for one in changed)
    name = next(iter(found["metrics"]))
    lines.append(
        f"\n{len(changed)} records changed by {name}: {worse} have a lower score, {len(changed) - worse} a higher."
    )
    if changed:
        lines.append("\n| record | question | expected | first | second |\n|---|---|---|---|---|")
        lines += [
            f"| {' | '.join(cell(one[key])[:80] for key in ('where', 'question', 'expected', 'first', 'second'))} |"
            for one in changed[:SHOWN]
        ]
    if len(changed) > SHOWN:
        lines.append(f"\nThese are {SHOWN} of them; --json has all.")
    return "\n".join(lines) + "\n"


def _pairs(one: Result, other: Result) -> dict[str, tuple[Scored, Scored]]:
    """What both say by each metric, of the records that have it in both."""
    pairs = {}
    for name in one.summary["metrics"]:
        if name not in (ACCURACY, *METRICS):  # a further number of a metric
            continue
        both = zip(one.rows, other.rows, strict=True)
        places = [place for place, rows in enumerate(both) if all(name in row["scores"] for row in rows)]
        if places:
            pairs[name] = _scored(one, name, places), _scored(other, name, places)
    return pairs


def _scored(result: Result, name: str, places: list[int]) -> Scored:
    """A metric of some of the rows, its counts included."""
    return replace(score([result.rows[place] for place in places], [name])[name], places=places)


def _changed(one: Result, other: Result, first: Scored, second: Scored) -> list[dict[str, Any]]:
    sign = -1 if first.metric.lower_is_better else 1

    def rows() -> Iterator[dict[str, Any]]:
        for place, before, after in zip(first.places, first.scores.tolist(), second.scores.tolist(), strict=True):
            row, then = one.rows[place], other.rows[place]
            if before != after:
                yield {
                    "where": row["where"],
                    "family": row["family"],
                    "question": row["question"],
                    "expected": row["expected"][0],
                    "first": row["answer"],
                    "second": then["answer"],
                    "first_score": before,
                    "second_score": after,
                }

    return sorted(rows(), key=lambda row: sign * (row["second_score"] - row["first_score"]))
