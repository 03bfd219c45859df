"""Being asked to stop: SIGTERM, as a spot machine sends it, and Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Asked:
    """Whether the process has been asked to stop, and how."""

    signal: int = 0
    """0 while nobody has asked."""


@contextmanager
def heeding_signals() -> Iterator[Asked]:
    """Note SIGTERM and Ctrl-C instead of dying of them; a second Ctrl-C interrupts at once.

    Only the main thread can; elsewhere signals do what they did.
    """
    asked = Asked()

    def note(number: int, frame: FrameType | None) -> None:
        if asked.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.signal = number

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
