"""What all commands share: what they say, and how their options are described."""

import logging
import sys
import warnings
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter


def complain(error: Exception | str) -> None:
    """One sentence on stderr."""
    sys.stderr.write(f"neo: {' '.join(str(error).split())}\n")


def say(text: str, end: str = "\n") -> None:
    """To stdout, at once."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def track(what: str, done: int = 0) -> Callable[[Iterable[Any], int], Iterator[Any]]:
    """Shows on stderr how far a loop is and how long it will take; nothing where nobody looks.

    Args:
        what: is going on.
        done: items of the total that were there before.
    """

    def track(items: Iterable[Any], total: int) -> Iterator[Any]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(
            *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        ) as progress:
            yield from progress.track(items, total, done, description=what)

    return track


class ToStderr(logging.StreamHandler):
    """Writes to what `sys.stderr` is at the time: where a progress bar stands in for it, above the bar."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def quiet_libraries() -> None:
    logging.basicConfig(format="neo: %(message)s", level=logging.WARNING, handlers=[ToStderr()])
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def quiet_transformers() -> None:
    """No progress bars and advice of transformers on stderr: what matters is an error or comes from neo."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


class _Help(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of descriptions, where the examples are."""


def make_parser(name: str, description: str, usage: str = "") -> ArgumentParser:
    """A parser whose mistakes are raised, so that `neo.cli.main` can say them in one sentence."""
    return ArgumentParser(
        prog=f"neo {name}".strip(),
        usage=f"neo {name} {usage}".replace("  ", " ") if usage else None,
        description=description,
        formatter_class=_Help,
        exit_on_error=False,
        allow_abbrev=False,
    )
