"""Scores of benchmarks that were measured, in files, and beside the published ones, in a table."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from neo.evaluation.benchmarks import Published, benchmark, benchmarks, published

RESULT = "benchmark.json"


@dataclass(frozen=True)
class Measured:
    """Scores of one model on one task of a harness."""

    model: str
    harness: str
    task: str
    scores: Mapping[str, float]
    """By the harness's names."""
    questions: int | None = None
    limit: int | None = None
    """So many questions of all, where not all were asked."""
    settings: Mapping[str, Any] | None = None
    """How it was asked."""

    @property
    def score(self) -> float | None:
        """In per cent, as it is published; None for a task that is none of the thirteen."""
        known = benchmark(self.task, self.harness)
        return None if known is None else known.score(self.harness, self.scores)


def write(measured: Measured, folder: Path) -> Path:
    """Write a result into a folder of results; gives the file."""
    place = folder / re.sub(r"[^\w.-]+", "-", f"{measured.model}-{measured.harness}-{measured.task}").strip("-")
    place.mkdir(parents=True, exist_ok=True)
    (place / RESULT).write_text(json.dumps(asdict(measured) | {"score": measured.score}, indent=2) + "\n")
    return place / RESULT


def read(folder: Path) -> list[Measured]:
    """All results below a folder.

    Raises:
        ValueError: there are none, or a file is none.
    """
    files = sorted(folder.rglob(RESULT))
    if not files:
        raise ValueError(f"{folder}: no results here; neo eval --benchmark ... --output {folder} writes some")
    return [_read(file) for file in files]


def table(results: list[Measured]) -> str:
    """Markdown: what was measured above what is published, a table for models of each size."""
    parts = []
    for size, words in (("2B", "2 billion parameters"), ("8B", "8 billion parameters")):
        mine = [one for one in results if one.score is not None and _size(one.model) in (size, None)]
        if mine:
            parts.append(f"## Beside models of about {words}\n\n{_table(mine, size)}")
    others = [one for one in results if one.score is None]
    if others:
        lines = [
            f"| {one.model} | {one.harness} | {one.task} | {name} | {value:.4g} |"
            for one in others
            for name, value in one.scores.items()
            if not math.isnan(value)
        ]
        head = "| model | harness | task | score | value |\n|---|---|---|---|---:|"
        parts.append("\n".join(["## Other tasks\n", head, *lines]))
    if any(one.limit for one in results):
        parts.append("\\* of some of the questions only.")
    sources = "\n".join(f"- {source}" for source in dict.fromkeys(one.source for one in published()))
    return "\n\n".join([*parts, f"Published scores, in per cent:\n\n{sources}"]) + "\n"


def _table(results: list[Measured], size: str) -> str:
    columns = list(benchmarks())
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for one in results:
        known = benchmark(one.task, one.harness)
        if known is not None and one.score is not None:
            rows.setdefault((one.model, one.harness), {})[known.name] = f"{one.score:.1f}{'*' if one.limit else ''}"
    lines = [f"| {' | '.join(['model', *columns])} |", "|---|" + "---:|" * len(columns)]
    for (model, harness), found in rows.items():
        lines.append(_line(f"**{model}**, measured by {harness}", [found.get(name, "") for name in columns]))
    for system in sorted((one for one in published() if one.size == size), key=_order):
        cells = [f"{system.scores[name]:.1f}" if name in system.scores else "" for name in columns]
        lines.append(_line(f"{system.name} ({system.base}, {system.kind})", cells))
    return "\n".join(lines)


def _line(name: str, cells: list[str]) -> str:
    return f"| {' | '.join([name, *cells])} |"


def _order(system: Published) -> tuple[bool, bool]:
    """NEO first, then the native ones."""
    return not system.name.startswith("NEO"), system.kind != "native"


def _size(model: str) -> str | None:
    """Which table a model stands in, by its name; None: both."""
    found = re.search(r"(\d+)B\b", model)
    return None if found is None else "2B" if int(found[1]) < 5 else "8B"


def _read(file: Path) -> Measured:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        fields.pop("score")
        return Measured(**fields)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{file}: this is not a result of neo eval --benchmark ({error})") from error
