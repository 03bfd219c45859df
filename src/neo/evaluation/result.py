"""What an evaluation gives, and the folder that keeps it."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neo.evaluation.scoring import Row
from neo.evaluation.summary import table

PREDICTIONS, SUMMARY, TABLE, REPORT = "predictions.jsonl", "summary.json", "table.md", "report.html"


@dataclass(frozen=True)
class Result:
    """Answers of a model to a test set, and what they come to.

    `result["accuracy"]` is a metric over all questions, `print(result)` the table.
    """

    summary: dict[str, Any]
    """See `neo.evaluation.summary`."""
    rows: list[Row]
    """A row for each question, with its `scores` by metric."""

    def __getitem__(self, metric: str) -> float:
        """A metric over all questions.

        Raises:
            KeyError: it was not measured.
        """
        return self.summary["metrics"][metric]["all"]["value"]

    def __str__(self) -> str:
        return table(self.summary)

    def write(self, folder: Path) -> None:
        """Write predictions, summary and table; each appears when it is whole."""
        write_text(folder / TABLE, str(self))
        write_text(folder / SUMMARY, json.dumps(self.summary, ensure_ascii=False, indent=2) + "\n")
        write_text(folder / PREDICTIONS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows))


def read_result(folder: str | Path) -> Result:
    """What an evaluation wrote.

    Raises:
        ValueError: the folder holds none, or one that was not finished.
    """
    folder = Path(folder).expanduser()
    if not (folder / PREDICTIONS).is_file():
        part = (folder / f"{PREDICTIONS}.part").exists()
        raise ValueError(
            f"{folder}: the evaluation has not been finished; give its command again"
            if part
            else f"{folder}: no evaluation was written here, {PREDICTIONS} is missing"
        )
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        with (folder / PREDICTIONS).open("rb") as file:  # as bytes: a text has other line ends, too
            rows = [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: {SUMMARY} or {PREDICTIONS} cannot be read ({error}); evaluate anew") from error
    if not isinstance(summary, dict) or not {"model", "data", "about", "metrics"} <= summary.keys():
        raise ValueError(f"{folder}: {SUMMARY} is not that of an evaluation; give another folder, or evaluate anew")
    return Result(summary, rows)


def write_text(path: Path, text: str) -> None:
    """Write a file, which appears when it is whole."""
    # A file's name may hold what is no text.
    whole = path.with_name(f"{path.name}.whole")
    whole.write_bytes(text.encode(errors="replace"))
    os.replace(whole, path)


def wrong_first(rows: Sequence[Row], metric: str, lower_is_better: bool = False) -> list[int]:
    """Places of rows in the order of a metric, the worst first; rows without it last."""

    def key(place: int) -> tuple[bool, float]:
        value = rows[place]["scores"].get(metric)
        return value is None, 0.0 if value is None else (-value if lower_is_better else value)

    return sorted(range(len(rows)), key=key)
