"""One request on its way through the server: who asks, what is under way for it, and what the log will say."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from neo.inference.generation import Generation


class Visit:
    """Made at the door for every request, in `request.state.visit`; closed when its answer or its asker has left."""

    def __init__(self, request_id: str, seconds: float) -> None:
        self.id, self.began = request_id, time.monotonic()
        self._deadline = self.began + seconds
        self.answers = 0
        """Places in the queue that it holds."""
        self.asker, self.counted = "", 0
        """Whose rate it spends, and how many answers of it."""
        self.bytes = 0
        """Of its body, that have come."""
        self.admit: Callable[[int], None] = lambda answers: None
        """Asks for places for so many answers in all; raises ApiError where there are none."""
        self.generations: list[Generation] = []
        self.facts: dict[str, Any] = {}
        """For the log: sizes and counts, never what was asked, shown or said."""
        self.outcome: str | None = None
        """cancelled, timeout or error, where the status does not say it."""
        self.news = asyncio.Event()
        """Set when a piece of an answer has come, or its asker has gone."""
        self._lock = threading.Lock()
        self._closed = False

    def adopt(self, generation: Generation) -> None:
        """An answer is under way for it; cancelled at once if nobody waits for it any more."""
        with self._lock:
            self.generations.append(generation)
            if self._closed:
                generation.cancel()

    def close(self) -> None:
        """Nobody waits any more: what is under way is cancelled, so that its memory is free again."""
        with self._lock:
            self._closed = True
            for generation in self.generations:
                generation.cancel()
        self.news.set()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def seconds_left(self) -> float:
        return max(0.001, self._deadline - time.monotonic())
