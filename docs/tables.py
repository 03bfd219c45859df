"""Put measured numbers into README.md: the accuracy of neo-demo and the newest speed measurement.

    python docs/tables.py

It rewrites the table under each of two headings from the file that the measurement wrote, so that no number
in the README is typed by hand. A test checks that the README is what this script makes of it.
"""

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ACCURACY = ROOT / "src" / "neo" / "checkpoints" / "neo-demo" / "accuracy.json"
RESULTS = ROOT / "benchmarks" / "results"
ACCURACY_HEADING = "## What the small model can do"
SPEED_HEADING = "## Speed"


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


def with_table(text: str, heading: str, block: list[str]) -> str:
    """The text with the table under a heading, and the line that tells where it was measured, replaced.

    Raises:
        ValueError: there is no such heading, or no table in its section.
    """
    lines = text.splitlines()
    if heading not in lines:
        raise ValueError(f"README.md has no heading {heading!r}")
    first = lines.index(heading) + 1
    while first < len(lines) and not lines[first].startswith("|"):
        if lines[first].startswith("## "):
            raise ValueError(f"the section {heading!r} of README.md has no table")
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


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
