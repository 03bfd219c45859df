"""A run drawn: losses, gradient, learning rate and speed over the steps."""

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from neo.training.metrics import LOSS_OF, read_metrics, read_validation

CURVES = "curves.png"
WINDOW = 0.06
COLORS = ("#3d6fa5", "#d9813b", "#5a9a68", "#b0524e", "#8268a8", "#8a6d5b", "#c878a8", "#7a7f87", "#a8a13c", "#4aa5ad")
"""Of lines; more than these sources are not told apart."""

Values = Sequence[float | None]


def draw_curves(folder: Path, title: str) -> Path:
    """Draw the metrics of a run into its `curves.png`.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import PercentFormatter, StrMethodFormatter
    except ImportError as error:
        raise ValueError(
            "drawing curves needs matplotlib: install the extra with pip install 'neo-vlm[train]'"
        ) from error
    lines = read_metrics(folder)
    steps = [line["step"] for line in lines]

    def of(name: str) -> list[float | None]:
        return [line.get(name) for line in lines]

    figure = Figure(figsize=(13, 7), layout="constrained")
    figure.suptitle(title, fontsize=13, fontweight="bold")
    (loss, by_source, gradient), (rate, speed, shares) = figure.subplots(2, 3)

    _noisy(loss, steps, of("loss"), COLORS[0], "training")
    if validation := read_validation(folder):
        checked, losses = zip(*((one["step"], one["loss"]) for one in validation), strict=True)
        loss.plot(checked, losses, "o-", color=COLORS[1], markersize=4, linewidth=1.2, label="validation")
        loss.legend(fontsize=8)
    _titled(loss, "loss")

    for color, name in zip(COLORS, _kinds(lines), strict=False):
        by_source.plot(steps, smoothed(of(name)), color=color, linewidth=1.5, label=name.removeprefix(LOSS_OF))
    if by_source.lines:
        by_source.legend(fontsize=8, ncols=2)
    _titled(by_source, "loss by source, smoothed" if _by_source(lines) else "loss by family, smoothed")

    _noisy(gradient, steps, of("gradient_norm"), COLORS[0])
    _titled(gradient, "norm of the gradient, before clipping")

    rate.plot(steps, _floats(of("learning_rate")), color=COLORS[2], linewidth=1.8)
    rate.yaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
    _titled(rate, "learning rate")

    speed.plot(steps, _floats(of("tokens_per_second")), color=COLORS[4], linewidth=1.5)
    speed.set_ylim(0, 1.1 * max([1.0, *(value for value in of("tokens_per_second") if value)]))
    speed.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _titled(speed, "tokens a second")

    for color, name, label in zip(
        COLORS, ("fill", "data_wait", "mfu"), ("rows filled", "waiting for data", "MFU"), strict=False
    ):
        if any(value is not None for value in of(name)):
            shares.plot(steps, _floats(of(name)), color=color, linewidth=1.5, label=label)
    shares.set_ylim(0, 1.03)
    shares.yaxis.set_major_formatter(PercentFormatter(1.0))
    if shares.lines:
        shares.legend(loc="center right", fontsize=8)
    _titled(shares, "shares")

    figure.savefig(folder / CURVES, dpi=120)
    return folder / CURVES


def smoothed(values: Values) -> list[float]:
    """A noisy curve as its mean around each point, over `WINDOW` of its length; nan where nothing is known."""
    known = [0 if value is None else 1 for value in values]
    counts, sums = [0, *accumulate(known)], [0.0, *accumulate(value or 0.0 for value in values)]
    half = int(len(values) * WINDOW / 2)
    result = []
    for place in range(len(values)):
        reach = min(half, place)  # as far to both sides, or the steep beginning would be bent
        start, stop = place - reach, min(place + reach + 1, len(values))
        count = counts[stop] - counts[start]
        result.append((sums[stop] - sums[start]) / count if count else math.nan)
    return result


def _by_source(lines: list[dict[str, Any]]) -> bool:
    """Whether there are several sources; one alone is shown by its families."""
    return len({name for line in lines for name in line if name.startswith(LOSS_OF) and name.count("/") == 1}) > 1


def _kinds(lines: list[dict[str, Any]]) -> list[str]:
    slashes = 1 if _by_source(lines) else 2
    return sorted({name for line in lines for name in line if name.startswith(LOSS_OF) and name.count("/") == slashes})


def _noisy(axes: Any, steps: list[int], values: Values, color: str, label: str | None = None) -> None:
    axes.plot(steps, _floats(values), color=color, alpha=0.3, linewidth=0.8)
    axes.plot(steps, smoothed(values), color=color, linewidth=1.8, label=label)


def _titled(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("step", fontsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _floats(values: Values) -> list[float]:
    return [math.nan if value is None else value for value in values]
