"""What a run measures: JSONL and CSV as it goes, curves as a picture."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FIELDS = (
    "step",
    "loss",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
    "samples_per_second",
    "fill",
    "data_wait",
    "seconds",
)
"""Columns of the CSV. `fill`: share of tokens that are not padding; `data_wait`: share of time waiting."""
JSONL, CSV, CURVES = "metrics.jsonl", "metrics.csv", "curves.png"
SMOOTHING = 0.9


class Metrics:
    """Lines of metrics in a folder; going on from a step forgets the lines after it."""

    def __init__(self, folder: Path, from_step: int = 0) -> None:
        self.folder = folder
        kept = read_metrics(folder) if from_step else []
        self.lines = [line for line in kept if line["step"] <= from_step]
        (folder / JSONL).write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        with (folder / CSV).open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(self.lines)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append one line; its names are `FIELDS`."""
        self.lines.append(dict(line))
        with (self.folder / JSONL).open("a") as file:
            file.write(json.dumps(line) + "\n")
        with (self.folder / CSV).open("a", newline="") as file:
            csv.DictWriter(file, FIELDS).writerow(line)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run so far."""
    file = folder / JSONL
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def draw_curves(folder: Path, title: str) -> Path:
    """Draw loss, gradient norm, learning rate and speed over the steps into `curves.png`.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            "drawing curves needs matplotlib: install the extra with pip install 'neo-vlm[train]'"
        ) from error
    lines = read_metrics(folder)
    steps = [line["step"] for line in lines]
    figure = Figure(figsize=(10, 6), layout="constrained")
    figure.suptitle(title)
    panels = ("loss", "gradient_norm", "learning_rate", "tokens_per_second")
    for axes, name in zip(figure.subplots(2, 2).flat, panels, strict=True):
        values = [line[name] for line in lines]
        axes.plot(steps, values, color="tab:blue", alpha=0.35 if name == "loss" else 1.0, linewidth=1)
        if name == "loss":
            axes.plot(steps, smoothed(values), color="tab:blue", linewidth=1.5)
        axes.set_xlabel("step")
        axes.set_ylabel(name.replace("_", " "))
        axes.grid(alpha=0.3)
    figure.savefig(folder / CURVES, dpi=110)
    return folder / CURVES


def smoothed(values: list[float]) -> list[float]:
    """Running mean of a noisy curve, `SMOOTHING` of it carried on at each point."""
    smoothed: list[float] = []
    for value in values:
        smoothed.append(value if not smoothed else SMOOTHING * smoothed[-1] + (1 - SMOOTHING) * value)
    return smoothed
