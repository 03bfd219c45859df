"""Two evaluations of the same questions: the difference with its interval, and the records that changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neo.evaluation.metrics import METRICS
from neo.evaluation.result import Result, read_result
from neo.evaluation.scoring import Scored, score
from neo.evaluation.statistics import paired_difference

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
    scored, scored_other = _scored(one), _scored(other)
    common = [name for name in scored if name in scored_other]
    if not common:
        raise ValueError(f"{first} and {second} have no metric in common; evaluate both with the same --metrics")
    metrics = {}
    for name in common:
        metric, more = scored[name].metric, scored[name].metric.more
        for label, total in {name: metric.total, **{f"{name}.{key}": value for key, value in more.items()}}.items():
            estimate = paired_difference(scored[name].counts, scored_other[name].counts, total)
            metrics[label] = {
                "first": float(total(scored[name].counts.sum(0))),
                "second": float(total(scored_other[name].counts.sum(0))),
                "difference": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "questions": len(scored[name].places),
            }
    return {
        "first": one.summary["model"],
        "second": other.summary["model"],
        "data": one.summary["data"],
        "metrics": metrics,
        "changed": _changed(one, other, common[0], scored[common[0]].metric.lower_is_better),
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
            f"| {' | '.join(_cell(one[key]) for key in ('where', 'question', 'expected', 'first', 'second'))} |"
            for one in changed[:SHOWN]
        ]
    if len(changed) > SHOWN:
        lines.append(f"\nThese are {SHOWN} of them; --json has all.")
    return "\n".join(lines) + "\n"


def _scored(result: Result) -> dict[str, Scored]:
    """What the metrics of an evaluation say, its counts included."""
    names = [name for name in result.summary["metrics"] if name in METRICS or name == "accuracy"]
    return score(result.rows, names)


def _changed(one: Result, other: Result, metric: str, lower_is_better: bool) -> list[dict[str, Any]]:
    sign = -1 if lower_is_better else 1

    def rows() -> Iterator[dict[str, Any]]:
        for row, then in zip(one.rows, other.rows, strict=True):
            before, after = row["scores"].get(metric), then["scores"].get(metric)
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


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")[:80]
