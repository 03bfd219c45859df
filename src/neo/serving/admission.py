"""Who may ask, how often, and how many at once."""

import hashlib
import hmac
import math
import time
from pathlib import Path

from neo.serving.errors import ApiError

MOST_BUCKETS = 10_000
"""Askers whose rate is remembered."""
BUSY = "the server is busy; try again later"


def read_keys(file: str | Path) -> tuple[str, ...]:
    """The API keys of a file, one a line; empty lines and those that begin with # say nothing.

    Raises:
        ValueError: the file cannot be read, or has no key, or one that is too short or holds a blank.
    """
    try:
        lines = Path(file).read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: the API keys cannot be read ({error})") from error
    keys = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not keys:
        raise ValueError(f"{file}: there is no API key in it; write one on each line")
    for number, key in enumerate(keys, 1):
        if len(key) < 16 or any(character.isspace() for character in key):
            raise ValueError(f"{file}: key {number} must be at least 16 characters without blanks")
    return keys


class ApiKeys:
    """Compares keys in a time that does not depend on them."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def name(self, authorization: str) -> str:
        """What a key is called in the log, from an Authorization header, `Bearer KEY`.

        Raises:
            ApiError: keys are asked for and this is none of them.
        """
        if not self._digests:
            return ""
        given = hashlib.sha256(_key_in(authorization)).digest()
        same = [hmac.compare_digest(given, digest) for digest in self._digests]  # all, also behind the right one
        if not any(same):
            message, headers = "a valid API key is needed: Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"}
            raise ApiError(401, message, code="invalid_api_key", headers=headers)
        return given.hex()[:8]


def _key_in(authorization: str) -> bytes:
    scheme, _, key = authorization.partition(" ")
    return key.strip().encode("latin-1") if scheme.lower() == "bearer" else b""


class RateLimit:
    """A bucket of tokens for each asker: as many answers at once as a minute brings."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens left, and when that was

    def spend(self, asker: str, answers: int = 1) -> None:
        """Count answers.

        Raises:
            ApiError: there were too many in the last minute.
        """
        if not self.per_minute:
            return
        now, rate = time.monotonic(), self.per_minute / 60
        left, then = self._buckets.pop(asker, (float(self.per_minute), now))
        left = min(self.per_minute, left + rate * (now - then))
        self._buckets[asker] = (left - answers if left >= answers else left, now)
        if len(self._buckets) > MOST_BUCKETS:
            del self._buckets[next(iter(self._buckets))]  # the one that asked longest ago
        if left < answers:
            wait = math.ceil((answers - left) / rate)
            message = f"more than {self.per_minute} answers a minute"
            raise ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": str(wait)})

    def give_back(self, asker: str, answers: int) -> None:
        """Uncount answers: the rest of their request was refused."""
        if asker in self._buckets:
            left, then = self._buckets[asker]
            self._buckets[asker] = left + answers, then


class Bytes:
    """Of all bodies under way, a budget."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0

    def hold(self, count: int) -> None:
        """Count some more.

        Raises:
            ApiError: they would be too many.
        """
        if self.held + count > self.most:
            raise ApiError(429, BUSY, code="queue_full", headers={"Retry-After": "1"})
        self.held += count


class Queue:
    """Places for answers, running and waiting; beyond them requests are refused."""

    def __init__(self, running: int, waiting: int) -> None:
        self.running, self.places, self.taken = running, running + waiting, 0
        self._seconds = 1.0  # of an answer, lately

    def enter(self, answers: int) -> None:
        """Take places.

        Raises:
            ApiError: there are not so many left.
        """
        self.check(answers)
        self.taken += answers

    def check(self, answers: int) -> None:
        """Whether so many places are left.

        Raises:
            ApiError: they are not.
        """
        if self.taken + answers > self.places:
            wait = min(60, math.ceil(self._seconds * self.taken / self.running))
            raise ApiError(429, BUSY, code="queue_full", headers={"Retry-After": str(wait)})

    def leave(self, answers: int, seconds: float | None = None) -> None:
        """Give places back, after so many seconds where they were answered."""
        self.taken -= answers
        if seconds is not None:
            self._seconds += 0.1 * (seconds - self._seconds)
