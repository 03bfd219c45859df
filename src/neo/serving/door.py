"""Every request passes here, in and out: it gets an id, shows its key, takes a place, and leaves a line in the log.

When it has left, however it did, what was under way for it is cancelled and its places are free again.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neo.serving import logs, playground
from neo.serving.admission import ApiKeys, Bytes, Queue, RateLimit
from neo.serving.answering import Answering, out_of_time
from neo.serving.errors import ApiError, ending, internal
from neo.serving.visit import Visit

logger = logging.getLogger(__name__)

OPEN = ("/health", *playground.FILES)
"""Routes without a key."""
ANSWERS = ("/v1/chat/completions", "/v1/completions", "/analyze", "/attention")
"""Routes that take a place in the queue and are counted."""
BODY_SECONDS = 60
"""How long a body may take to come, where the time of the request is not less."""
LAST_SECONDS = 5
"""How long an answer that is out of time may take to say so."""
DRAIN_SECONDS = 5
"""How long the rest of a refused body is read and thrown away, so that its sender hears the refusal."""


class Door:
    """ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp, answering: Answering, queue: Queue) -> None:
        settings = answering.settings
        self.app, self.answering, self.queue, self.settings = app, answering, queue, settings
        self.keys, self.rate = ApiKeys(settings.api_keys), RateLimit(settings.rate_limit)
        self.bytes = Bytes(queue.places * settings.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        visit = Visit(logs.request_id(headers.get("x-request-id", "")), self.settings.request_timeout)
        scope.setdefault("state", {})["visit"] = visit
        body = _Body(receive, visit, self.settings.max_body_bytes, partial(self._hold, visit))
        answer = _Answer(send, visit)
        self.answering.visits.add(visit)
        try:
            self._let_in(scope, headers, visit)
            async with asyncio.timeout(self.settings.request_timeout + LAST_SECONDS):
                await self.app(scope, body.receive, answer.send)
        except TimeoutError:
            visit.outcome = "timeout"
            if answer.status is None:  # else whoever asked does not read it; its connection is closed
                await out_of_time().response()(scope, receive, answer.send)
        except ApiError as error:
            visit.facts |= error.facts()
            await body.drain()
            await error.response()(scope, receive, answer.send)
        except asyncio.CancelledError:  # by whoever runs the server, whose patience is over: this task ends anyway
            visit.outcome = "unavailable" if self.answering.draining else "cancelled"
            if answer.status is None:
                await ending().response()(scope, receive, answer.send)
        except Exception:
            visit.outcome = "error"
            logger.exception("a request failed", extra={"fields": {"request_id": visit.id}})
            if answer.status is None:
                await internal().response()(scope, receive, answer.send)
        finally:
            self.answering.visits.discard(visit)
            body.forget()
            visit.close()
            self.bytes.held -= visit.bytes
            self._see_off(scope, visit, answer)

    def _let_in(self, scope: Scope, headers: Headers, visit: Visit) -> None:
        if scope["path"] in OPEN:
            return
        visit.facts["address"] = _address(scope)
        asker = self.keys.name(headers.get("authorization", ""))
        if asker:
            visit.facts = {"key": asker}
        if not _asks(scope):
            return
        self.answering.ready()
        if int(headers.get("content-length") or 0) > self.settings.max_body_bytes:
            raise _too_large(self.settings.max_body_bytes)
        visit.asker, visit.admit = asker or _address(scope), partial(self._admit, visit)
        # The place itself is taken when the body has come: whoever sends slowly keeps none from others.
        with self._counting(visit):
            self.queue.check(1)
            self.rate.spend(visit.asker, 1)
            visit.counted = 1

    def _hold(self, visit: Visit, count: int) -> None:
        """Count more bytes of a body."""
        with self._counting(visit):
            self.bytes.hold(count)
            visit.bytes += count

    def _admit(self, visit: Visit, answers: int) -> None:
        """Count so many answers for a request, in all."""
        for most, per in ((self.queue.places, "at once"), (self.rate.per_minute or answers, "in a minute")):
            if answers > most:
                message = f"{answers} answers are more than this server gives {per} ({most})"
                raise ApiError(400, message, param="n")
        with self._counting(visit):
            self.queue.enter(answers - visit.answers)
            visit.answers = answers
            self.rate.spend(visit.asker, answers - visit.counted)
            visit.counted = answers

    @contextlib.contextmanager
    def _counting(self, visit: Visit) -> Iterator[None]:
        """What is refused as too much spends no rate, or it could be asked again and again in vain."""
        try:
            yield
        except ApiError as error:
            self.answering.metrics.rejections.labels(error.code).inc()
            self.rate.give_back(visit.asker, visit.counted)
            visit.counted = 0
            raise

    def _see_off(self, scope: Scope, visit: Visit, answer: "_Answer") -> None:
        seconds = time.monotonic() - visit.began
        fields = {"request_id": visit.id, "method": scope["method"], "path": scope["path"], "status": answer.status}
        if _asks(scope):
            outcome = visit.outcome or _outcome(answer)
            fields |= {"outcome": outcome} | self._measure(visit, outcome, seconds)
            if visit.answers:
                self.queue.leave(visit.answers, seconds if outcome == "ok" else None)
        logs.requests.log(
            logging.DEBUG if scope["path"] in ("/health", "/metrics") else logging.INFO,
            "request",
            extra={"fields": fields | {"seconds": round(seconds, 4)} | visit.facts},
        )

    def _measure(self, visit: Visit, outcome: str, seconds: float) -> dict[str, Any]:
        metrics, tokens = self.answering.metrics, self.answering.count(visit.generations)
        metrics.requests.labels(outcome).inc()
        metrics.prompt_tokens.inc(tokens["prompt_tokens"])
        metrics.picture_tokens.inc(tokens["picture_tokens"])
        metrics.cached_tokens.inc(tokens["cached_tokens"])
        metrics.generated_tokens.inc(tokens["generated_tokens"])
        first = [one.first_token_at - visit.began for one in visit.generations if one.first_token_at is not None]
        for wait in first:
            metrics.first_token.observe(wait)
        if outcome == "ok":
            metrics.whole.observe(seconds)
        if not visit.generations:
            return {}
        return tokens | {
            "n": len(visit.generations),
            "max_tokens": visit.generations[0].request.max_new_tokens,
            "finish_reason": ",".join(sorted({one.finish_reason or "cancelled" for one in visit.generations})),
            "first_token_seconds": round(min(first), 4) if first else None,
        }


class _Body:
    """The asker's side: what it sends, within size and time, and afterwards whether it is still there."""

    def __init__(self, receive: Receive, visit: Visit, most_bytes: int, hold: Callable[[int], None]) -> None:
        self._receive, self._visit, self._most, self._hold = receive, visit, most_bytes, hold
        self._complete = False
        self._watch: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        left = self._visit.began + BODY_SECONDS - time.monotonic()
        try:
            async with asyncio.timeout(min(left, self._visit.seconds_left)):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, "the body of the request did not come in time", code="body_timeout") from None
        self._complete = not message.get("more_body", False)
        if message["type"] == "http.disconnect":
            self._visit.outcome = "cancelled"
            self._visit.close()
            return message
        self._hold(len(message.get("body", b"")))
        if self._visit.bytes > self._most:
            raise _too_large(self._most)
        if self._complete:
            self._visit.admit(1)
            self._watch = asyncio.create_task(self._until_gone())
        return message

    async def _until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._visit.close()

    async def drain(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._complete:
                    self._complete = not (await self._receive()).get("more_body", False)

    def forget(self) -> None:
        if self._watch is not None:
            self._watch.cancel()


class _Answer:
    """The server's side: what it sends, with the request's id."""

    def __init__(self, send: Send, visit: Visit) -> None:
        self._send, self._visit = send, visit
        self.status: int | None = None
        self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._visit.id
            headers["x-content-type-options"] = "nosniff"
        await self._send(message)
        if message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)


def _too_large(most: int) -> ApiError:
    message = f"the body has more than {most} bytes"
    return ApiError(413, message, code="body_too_large", headers={"Connection": "close"})


def _asks(scope: Scope) -> bool:
    return scope["method"] == "POST" and scope["path"] in ANSWERS


def _address(scope: Scope) -> str:
    return str((scope.get("client") or ("",))[0])


def _outcome(answer: _Answer) -> str:
    """Of a request, where nothing more exact is known."""
    status = answer.status
    if status is None or status >= 500:
        return {503: "unavailable", 504: "timeout"}.get(status or 500, "error")
    if not answer.complete:
        return "cancelled"
    return {429: "rejected", 499: "cancelled"}.get(status, "ok" if status < 400 else "refused")
