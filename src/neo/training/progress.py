"""What a run says while it goes on: a bar on a terminal, lines elsewhere, and early how long it will take."""

import logging
import time
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

UNUSUAL, MEASURED = 1, 5
"""Steps at the beginning that are not typical (compilers, caches), and those after them that the rest is judged by."""
SHOWN = {"loss": ("loss", ".4f"), "tokens_per_second": ("tokens/s", ",.0f"), "mfu": ("MFU", ".1%")}
"""What is told of a line of metrics, with its name and format."""


class RunProgress:
    """The progress of a run, on one of its ranks."""

    def __init__(self, name: str, steps: int, done: int, quiet: bool = False) -> None:
        """Begin to tell.

        Args:
            name: of the stage.
            steps: of the run.
            done: steps done before.
            quiet: say nothing, as on ranks above 0.
        """
        self.steps, self.done, self.quiet = steps, done, quiet
        self._first, self._typical_since = done, 0.0
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[news]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), disable=quiet, speed_estimate_period=600)
        self._task = self._bar.add_task(name, total=steps, completed=done, news="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, line: dict[str, Any] | None) -> None:
        """One step more is done; `line` of metrics, where one was due."""
        self.done += 1
        self._bar.update(self._task, completed=self.done)
        self._foretell()
        if line:
            shown = [f"{label} {line[name]:{how}}" for name, (label, how) in SHOWN.items() if line[name] is not None]
            news = "  ".join(shown)
            self._bar.update(self._task, news=news)
            if not self.quiet and not self._bar.console.is_terminal:
                logger.info("step %d/%d  %s", self.done, self.steps, news)

    def _foretell(self) -> None:
        """After the first steps, say how long the rest will take."""
        done = self.done - self._first
        if done == UNUSUAL:
            self._typical_since = time.perf_counter()
        if done == UNUSUAL + MEASURED and self.done < self.steps and not self.quiet:
            seconds = (time.perf_counter() - self._typical_since) / MEASURED
            left = seconds * (self.steps - self.done)
            end = datetime.now() + timedelta(seconds=left)
            logger.info(
                "%d steps to go at about %.2g s each: %s, until about %s",
                self.steps - self.done,
                seconds,
                in_words(left),
                f"{end:%H:%M}" if left < 12 * 3600 else f"{end:%a %d %b %H:%M}",
            )


def in_words(seconds: float) -> str:
    """A time in its two largest units: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
