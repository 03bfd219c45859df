"""A request to the engine, and its answer while it is being made."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from neo.inference.sampling import Sampling
from neo.inference.text import TextStream, to_text
from neo.processing.processor import Encoded


class Constraint(Protocol):
    """What an answer must look like, followed token by token; see `neo.inference.constraint`."""

    def mask(self, logits_V: Tensor) -> Tensor:
        """The logits with those of impossible tokens at -inf."""
        ...

    def accept(self, token: int) -> bool:
        """Go on behind a token; whether the answer is complete with it."""
        ...


@dataclass(frozen=True)
class Request:
    """A checked question."""

    prompt: Encoded
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop_ids: frozenset[int] = frozenset()
    """The answer ends before any of these."""
    stop: tuple[str, ...] = ()
    """The answer ends before any of these strings."""
    logprobs: int | None = None
    """Log-probabilities of the chosen tokens, and of so many likeliest ones; None for none."""
    constraint: Callable[[], Constraint] | None = None
    """Makes a fresh constraint."""
    timeout: float | None = None
    """Seconds until the answer is broken off."""


class TooLong(ValueError):
    """A request is longer than the model's context, or than the cache."""


@dataclass(frozen=True)
class TokenLogprob:
    """Natural logarithm of a token's probability by the model itself, before temperature and the like."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens at this place with theirs."""


@dataclass(frozen=True)
class Piece:
    """One token of an answer, and the text that became certain with it."""

    text: str
    token: int | None = None
    """None for text that was waiting when the answer ended."""
    logprob: TokenLogprob | None = None


@dataclass(frozen=True)
class Completion:
    """A finished answer."""

    text: str
    tokens: tuple[int, ...]
    """Without the one that ended it."""
    finish_reason: str
    """stop, length (no tokens left), cancelled or timeout."""
    prompt_tokens: int
    reused_tokens: int
    """Tokens of the prompt that were found in the cache."""
    seconds_to_first_token: float | None
    """None where there was no token."""
    seconds: float
    logprobs: tuple[TokenLogprob, ...] = ()


class Generation:
    """An answer under way: iterate over its pieces, or ask for its completion.

    Whoever waits for it drives the engine, unless the engine has a thread of its own. Safe to read from one thread
    and to cancel from any.
    """

    def __init__(
        self, request: Request, tokenizer: PreTrainedTokenizerBase, wait: Callable[["Generation"], None]
    ) -> None:
        self.request = request
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason: str | None = None
        self.over = False
        """Whether it has ended and its listener knows."""
        self.error: Exception | None = None
        self.cancelled = False
        self.reused_tokens = 0
        self.began = time.monotonic()
        self.first_token_at: float | None = None
        self.ended: float | None = None
        self.news = threading.Event()
        """Set when a piece has come, or the end."""
        self.listener: Callable[[], None] | None = None
        """Called from the engine after each piece and at the end; what it raises ends this request alone. It must not
        wait for the engine that calls it."""
        self._tokenizer, self._wait = tokenizer, wait
        self._stream = TextStream(tokenizer, request.stop)
        self._pieces: deque[Piece] = deque()

    # --- for those who ask ---

    def __iter__(self) -> Iterator[Piece]:
        """The pieces as they come; breaking off cancels.

        Raises:
            Exception: what went wrong inside this request.
        """
        try:
            while True:
                while self._pieces:
                    yield self._pieces.popleft()
                if self.over and not self._pieces:
                    break
                self._wait(self)
        finally:
            self.cancel()
        if self.error is not None:
            raise self.error

    def pieces(self) -> list[Piece]:
        """Those that have come since they were last taken; never waits."""
        taken = []
        while self._pieces:
            taken.append(self._pieces.popleft())
        return taken

    def result(self) -> Completion:
        """Wait for the end.

        Raises:
            Exception: what went wrong inside this request.
        """
        for _ in self:
            pass
        return self.completion()

    def completion(self) -> Completion:
        """Of an answer that has ended."""
        assert self.finish_reason is not None, "the answer is still under way"
        assert self.ended is not None
        text = to_text(self._tokenizer, self.tokens)
        ends = [text.find(stop) for stop in self.request.stop if stop in text]
        return Completion(
            text=text[: min(ends)] if ends else text,
            tokens=tuple(self.tokens),
            finish_reason=self.finish_reason,
            prompt_tokens=len(self.request.prompt.input_ids),
            reused_tokens=self.reused_tokens,
            seconds_to_first_token=None if self.first_token_at is None else self.first_token_at - self.began,
            seconds=self.ended - self.began,
            logprobs=tuple(self.logprobs),
        )

    def cancel(self) -> None:
        """End it early; of no effect at or after its end."""
        self.cancelled = True

    # --- for the engine ---

    @property
    def overdue(self) -> bool:
        """Whether its time is up."""
        return self.request.timeout is not None and time.monotonic() - self.began > self.request.timeout

    def say(self, token: int, logprob: TokenLogprob | None) -> None:
        """One more token of the answer; ends it at a stop string."""
        self.first_token_at = self.first_token_at or time.monotonic()
        self.tokens.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        self._pieces.append(Piece(self._stream.push(token), token, logprob))
        if self._stream.stopped:
            self.end("stop")
        else:
            self._tell()

    def end(self, reason: str, error: Exception | None = None) -> None:
        """Nothing more comes."""
        if text := self._stream.end():
            self._pieces.append(Piece(text))
        self.error, self.ended = error, time.monotonic()
        self.finish_reason = reason
        self._tell()

    def _tell(self) -> None:
        try:
            if self.listener is not None:
                self.listener()
        except Exception as error:  # noqa: BLE001 - raised to whoever asked
            self.listener = None  # or it would fail at the end again
            self.error = self.error or error
            self.finish_reason, self.ended = "error", time.monotonic()
        self.over = self.finish_reason is not None
        self.news.set()
