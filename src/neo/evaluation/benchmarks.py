"""The thirteen benchmarks of the paper: what they are called in either harness, and published scores of others.

Both are data: `benchmarks.yaml` and `published.yaml`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from neo.suggestion import suggestion

HARNESSES = ("lmms-eval", "vlmevalkit")


@dataclass(frozen=True)
class Benchmark:
    """One of the thirteen."""

    name: str
    split: str
    metric: str
    prompt: str
    """Behind the question in the published runs."""
    lmms_eval: Mapping[str, Any]
    """task, score, folder; `times` makes the score a per cent; `judge` where a language model marks answers."""
    vlmevalkit: Mapping[str, Any]
    """task, score and times likewise; `split` of the task's; `judge` that marks answers, `matcher` that reads them."""

    def task(self, harness: str) -> str:
        """Its name in a harness."""
        return self._of(harness)["task"]

    def score(self, harness: str, scores: Mapping[str, float]) -> float | None:
        """Its score in per cent, of a harness's scores by their names; None where they do not hold it."""
        fields = self._of(harness)
        names = [fields["score"]] if isinstance(fields["score"], str) else fields["score"]
        if not all(name in scores for name in names):
            return None
        return fields["times"] * sum(scores[name] for name in names) / len(names)

    def judge(self, harness: str) -> bool:
        """Whether a language model marks its answers."""
        return "judge" in self._of(harness)

    def _of(self, harness: str) -> Mapping[str, Any]:
        return self.lmms_eval if harness == "lmms-eval" else self.vlmevalkit


@dataclass(frozen=True)
class Published:
    """Published scores of one system, in per cent."""

    name: str
    size: str
    """2B or 8B: with which NEO the paper compares it."""
    base: str
    """The language model that it was built from."""
    kind: str
    """native or modular."""
    scores: Mapping[str, float]
    """By the benchmark's name; those that were not published are missing."""
    source: str


@cache
def benchmarks() -> dict[str, Benchmark]:
    """All of them by name."""
    return {name: Benchmark(name, **fields) for name, fields in _read("benchmarks.yaml").items()}


@cache
def published() -> list[Published]:
    """All systems, as published."""
    data = _read("published.yaml")
    systems = []
    for row in data["systems"]:
        scores = dict(zip(data["columns"], row.pop("scores"), strict=True))
        source = data["sources"][row.pop("source")]
        systems.append(Published(**row, scores={k: v for k, v in scores.items() if v is not None}, source=source))
    return systems


def benchmark(name: str, harness: str) -> Benchmark | None:
    """The benchmark of a name, its own or that of a harness's task; None where it is none of the thirteen."""
    return next(
        (one for one in benchmarks().values() if name.lower() in (one.name.lower(), one.task(harness).lower())), None
    )


def check_judge(name: str, harness: str) -> None:
    """Refuse a benchmark whose answers a language model marks where none can be asked; its score would be wrong.

    Raises:
        ValueError: there is no key for one.
    """
    known = benchmark(name, harness)
    if known is not None and known.judge(harness) and not (set(os.environ) & {"OPENAI_API_KEY", "AZURE_API_KEY"}):
        raise ValueError(f"{name}: a language model marks its answers; set OPENAI_API_KEY (docs/benchmarks.md)")


def check_harness(harness: str) -> None:
    """Refuse a harness that is not known.

    Raises:
        ValueError: the sentence names those that are.
    """
    if harness not in HARNESSES:
        raise ValueError(f"--harness {harness!r} must be {' or '.join(HARNESSES)}{suggestion(harness, HARNESSES)}")


def _read(name: str) -> Any:
    return yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))
