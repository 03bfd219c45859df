"""Put numbers into pages: the accuracy of neo-demo and its speed into README.md, published scores into benchmarks.md.

    python docs/tables.py

It rewrites the table under each of three headings from the file that holds the numbers, so that none is typed by
hand. Tests check that the pages are what this script makes of them.
"""

import json
from pathlib import Path

from neo.evaluation.benchmarks import Benchmark, benchmarks, published

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ACCURACY = ROOT / "src" / "neo" / "checkpoints" / "neo-demo" / "accuracy.json"
RESULTS = ROOT / "benchmarks" / "results"
ACCURACY_HEADING = "## What the small model can do"
SPEED_HEADING = "## Speed"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
BENCHMARKS_HEADING = "## The thirteen"


def accuracy_table(report: dict) -> list[str]:
    """Lines of the table: a row for each task."""
    lines = ["| task | question | accuracy | questions asked |", "|---|---|---:|---:|"]
    for row in report["tasks"]:
        lines.append(f"| {row['task']} | {row['question']} | {row['accuracy']:.1%} | {row['asked']} |")
    return lines


def speed_table(report: dict) -> list[str]:
    """Lines of the table, and after it where it was measured."""
    lines = [
        "| dtype | picture | tokens | attention | prefill | decode | peak memory |",
        "|---|---|---:|---|---:|---:|---:|",
    ]
    for row in report["rows"]:
        cells = (
            row["dtype"],
            f"{row['side']} x {row['side']}",
            row["tokens"],
            row["attention"],
            f"{row['prefill_tokens_per_s']:.0f} tokens/s",
            f"{row['decode_ms_per_token']:.1f} ms/token",
            f"{row['peak_memory_gib']:.2f} GiB",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    place = f"{report['hardware']}, {report['cores']} threads, torch {report['torch']}, {report['date']}"
    return [*lines, "", f"Measured on {place}."]


def newest_speed_report() -> Path:
    """The last measurement by date."""
    return sorted(RESULTS.glob("inference_cpu_*.json"))[-1]


def benchmark_table() -> list[str]:
    """Lines of the table: a row for each benchmark."""
    scores = {one.name: one.scores for one in published()}
    lines = [
        "| benchmark | split | metric | prompt | lmms-eval | VLMEvalKit | NEO-2B | NEO-9B |",
        "|---|---|---|---|---|---|---:|---:|",
    ]
    for one in benchmarks().values():
        cells = [one.name, one.split, one.metric, one.prompt, _task(one, "lmms-eval"), _task(one, "vlmevalkit")]
        cells += [f"{scores[system][one.name]:.1f}" for system in ("NEO-2B-SFT", "NEO-9B-SFT")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _task(one: Benchmark, harness: str) -> str:
    return f"`{one.task(harness)}`{' (judge)' if one.judge(harness) else ''}"


def with_table(text: str, heading: str, block: list[str]) -> str:
    """The text with the table under a heading, and the line that tells where it was measured, replaced.

    Raises:
        ValueError: there is no such heading, or no table in its section.
    """
    lines = text.splitlines()
    if heading not in lines:
        raise ValueError(f"the page has no heading {heading!r}")
    first = lines.index(heading) + 1
    while first < len(lines) and not lines[first].startswith("|"):
        if lines[first].startswith("## "):
            raise ValueError(f"the section {heading!r} of the page has no table")
        first += 1
    last = first
    while last < len(lines) and lines[last].startswith("|"):
        last += 1
    if lines[last + 1 : last + 2] and lines[last + 1].startswith("Measured on "):
        last += 2
    return "\n".join([*lines[:first], *block, *lines[last:]]) + "\n"


def filled(text: str) -> str:
    """The README with both tables as measured."""
    text = with_table(text, ACCURACY_HEADING, accuracy_table(json.loads(ACCURACY.read_text())))
    return with_table(text, SPEED_HEADING, speed_table(json.loads(newest_speed_report().read_text())))


def filled_benchmarks(text: str) -> str:
    """The page of benchmarks with its table as the data have it."""
    return with_table(text, BENCHMARKS_HEADING, benchmark_table())


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
    BENCHMARKS.write_text(filled_benchmarks(BENCHMARKS.read_text(encoding="utf-8")), encoding="utf-8")
