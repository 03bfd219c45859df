"""Rows of predictions to numbers, each with its interval, over all and by family; and those as a table."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from neo.evaluation.metrics import METRICS
from neo.evaluation.metrics.metric import Total
from neo.evaluation.scoring import Row, Scored
from neo.evaluation.statistics import Estimate, bootstrap, percentile

LATENCIES = {"first_token": "seconds_to_first_token", "total": "seconds"}
"""Names in the summary and in rows."""
PERCENTILES = {"p50": 50, "p95": 95}


def summarise(rows: Sequence[Row], scored: Mapping[str, Scored]) -> dict[str, Any]:
    """What all rows and those of each family come to, for JSON.

    Returns:
        `metrics` by name, with further numbers of a metric as `yes_no.f1`: {"all": number, "families": {name: number}},
        where a number is {"value", "low", "high", "questions"}, the interval being one of 95 %; the number of
        `questions` and that of each of the `families`; `cut_off`, how many answers ended at the limit of new tokens;
        `tokens`, means of a question and an answer.
    """
    metrics = {}
    for name, one in scored.items():
        for label, total in {name: one.metric.total, **_more(name, one)}.items():
            metrics[label] = {"all": _number(one.counts, total), "families": _by_family(rows, one, total)}
    return {
        "questions": len(rows),
        "families": dict(Counter(row["family"] for row in rows)),
        "metrics": metrics,
        "cut_off": sum(not row["complete"] for row in rows),
        "tokens": {name: _mean(row[f"{name}_tokens"] for row in rows) for name in ("prompt", "new")},
    }


def latency(rows: Sequence[Row]) -> dict[str, Any]:
    """Median and 95th percentile of the seconds to the first token and to the end of an answer, with intervals.

    `at_once` is how many questions were answered at the same time.
    """
    found: dict[str, Any] = {"at_once": max(row["at_once"] for row in rows)}
    for name, column in LATENCIES.items():
        values = np.array([row[column] for row in rows if row[column] is not None])
        if len(values):
            found[name] = {label: percentile(values, level)._asdict() for label, level in PERCENTILES.items()}
    return found


def table(summary: Mapping[str, Any]) -> str:
    """The summary in Markdown: a row for each family and one for all, then what was measured beside metrics."""
    metrics, families = summary["metrics"], summary["families"]
    lines = [f"# {cell(summary['model'])} on {cell(summary['data'])}", ""]
    lines += [f"| family | questions | {' | '.join(metrics)} |", f"|---|---:|{'---:|' * len(metrics)}"]
    for family, asked in families.items() if len(families) > 1 else ():
        cells = [written(name, one["families"].get(family)) for name, one in metrics.items()]
        lines.append(f"| {cell(family) or '(none)'} | {asked} | {' | '.join(cells)} |")
    cells = [written(name, one["all"]) for name, one in metrics.items()]
    lines += [
        f"| all | {summary['questions']} | {' | '.join(cells)} |",
        "",
        "In brackets: 95 % bootstrap intervals.",
        "",
    ]
    return "\n".join([*lines, *_beside(summary)]).rstrip() + "\n"


def written(name: str, number: Mapping[str, Any] | None) -> str:
    """A number with its interval, as people read it."""
    if number is None:
        return ""
    share = is_share(name)
    value, low, high = ((f"{number[key]:.1%}" if share else f"{number[key]:.3g}") for key in ("value", "low", "high"))
    return f"{value} ({low.removesuffix('%')} to {high})"


def is_share(name: str) -> bool:
    """Whether a number of the summary is told in percent."""
    return name not in METRICS or METRICS[name].share


def _beside(summary: Mapping[str, Any]) -> Iterator[str]:
    if latencies := summary.get("latency"):
        at_once = latencies["at_once"]
        how = "asked alone" if at_once == 1 else f"among {at_once} answered at the same time"
        yield f"Latency of a question {how}:"
        yield "| | median | 95th percentile |\n|---|---:|---:|"
        for name, label in (("first_token", "to the first token"), ("total", "to the end")):
            if name in latencies:
                yield f"| {label} | " + " | ".join(f"{one['value']:.3g} s" for one in latencies[name].values()) + " |"
        yield ""
    if "memory" in summary:
        peak = summary["memory"]["peak_bytes"]
        yield f"Peak memory: {'not known' if peak is None else f'{peak / 2**30:.2f} GiB'}.\n"
    if cost := summary.get("cost"):
        yield f"Cost of 1 000 questions: {cost['per_1000']:.3g} {cell(cost['currency'])} ({cell(cost['price'])}).\n"
    if summary["cut_off"]:
        yield f"Answers that were cut off at the limit of new tokens: {summary['cut_off']}.\n"


def _by_family(rows: Sequence[Row], scored: Scored, total: Total) -> dict[str, Any]:
    places = defaultdict(list)
    for number, place in enumerate(scored.places):
        places[rows[place]["family"]].append(number)
    return {family: _number(scored.counts[numbers], total) for family, numbers in places.items()}


def _number(counts: np.ndarray, total: Total) -> dict[str, Any]:
    estimate: Estimate = bootstrap(counts, total)
    return {**estimate._asdict(), "questions": len(counts)}


def _more(name: str, scored: Scored) -> dict[str, Total]:
    return {f"{name}.{label}": total for label, total in scored.metric.more.items()}


def _mean(values: Iterator[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def cell(text: str) -> str:
    """Anybody's text in a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")
