"""Several replicas of the server on Ray Serve: `neo serve --replicas N`, or `serve deploy` with a file of Ray's own.

A `Front` takes every request and hands it to one of the `Replica`s, each a whole server (`app.py`) with an engine of
its own. The beginning of a conversation decides which: its next turn comes to the same replica and finds there what
was computed before. Ray Serve's consistent hashing chooses, moves few conversations when replicas come or go, and
looks for another one where the first is full. A request whose replica dies goes to another, unless a part of its
answer has been sent already.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry, Counter, ProcessCollector, generate_latest
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import RequestRouterConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from ray.serve.handle import DeploymentHandle
from starlette.requests import ClientDisconnect

from neo.serving import logs
from neo.serving.admission import ApiKeys, read_keys
from neo.serving.door import ANSWERS, BODY_SECONDS
from neo.serving.errors import ApiError, ending, internal, unavailable
from neo.serving.metrics_text import merged
from neo.serving.settings import Settings
from neo.suggestion import suggestion

if TYPE_CHECKING:
    from neo.inference.chat import ChatModel

logger = logging.getLogger("ray.serve")

TRIES = 3
"""How often a request is handed to a replica, in all."""
LOST = (RayActorError, ReplicaUnavailableError)
"""What is raised where a replica has died."""
OTHER_SECONDS = 10
"""How long a request that asks for no answer waits for a replica, such as one for /health."""
LAST_SECONDS = 5
"""How long a replica may take to say that a request is out of time."""
LOOK_SECONDS = 0.1
"""How often a front that is to end looks whether it is done."""
METRICS_SECONDS = 5
"""How long replicas may take to tell their metrics."""
OUTCOMES = {429: "rejected", 499: "cancelled", 500: "error", 503: "unavailable", 504: "timeout"}
"""How a request that the front refuses has ended, by its status; otherwise it is refused."""
HELD_BODIES = 64
"""How many bodies of the greatest size a front holds at the same time, or as many bytes of smaller ones."""
FINISH_SECONDS = 30
"""How long those that are to end finish what they are at."""
SERVED_BY = b"x-served-by"
"""Header that names the replica."""
SCOPE = ("type", "method", "path", "raw_path", "query_string", "headers", "client", "scheme", "http_version")
"""What a replica is told of a request, besides its body."""


@serve.deployment(
    health_check_period_s=5,
    graceful_shutdown_timeout_s=FINISH_SECONDS,
    request_router_config=RequestRouterConfig(request_router_class=ConsistentHashRouter),  # type: ignore[arg-type]
)
class Replica:
    """One engine and its server. Ray asks for its health and puts another in its place where that is lost."""

    def __init__(self, load: "Callable[[], ChatModel]", settings: Settings, max_batch: int) -> None:
        from neo.serving.admission import Queue
        from neo.serving.answering import Answering
        from neo.serving.app import create_app
        from neo.serving.metrics import Metrics

        logs.to_stderr()
        self.answering = Answering(settings, Metrics())
        self.answering.use(load())
        self.app = create_app(self.answering, Queue(max_batch, settings.max_waiting))
        self.name = serve.get_replica_context().replica_id.unique_id

    async def ask(self, scope: dict[str, Any], body: bytearray) -> AsyncIterator[dict[str, Any]]:
        """What the server says to a request, as ASGI's messages."""
        said: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        asked = [{"type": "http.request", "body": bytes(body)}]

        async def receive() -> Any:
            return asked.pop() if asked else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            said.put_nowait(message)

        answering = asyncio.create_task(self.app({**scope, "asgi": {"version": "3.0"}}, receive, send))
        answering.add_done_callback(lambda _: said.put_nowait(None))
        try:
            while (message := await said.get()) is not None:
                self._end_with_engine()  # before it says so: whoever asked is answered by another one
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], (SERVED_BY, self.name.encode())]
                yield message
            await answering
        finally:
            answering.cancel()  # where whoever asked has gone: the server then cancels what is under way

    def metrics(self) -> tuple[str, str]:
        """Its name and its metrics, for Prometheus."""
        return self.name, self.answering.metrics.text().decode()

    def break_off(self) -> None:
        """Tell whoever still waits that the server is ending."""
        self.answering.break_off()

    def check_health(self) -> None:
        """Called by Ray."""
        self._end_with_engine()

    def _end_with_engine(self) -> None:
        """Where the engine has died the process ends at once: Ray puts another one in its place."""
        model = self.answering.model
        if model is not None and not model.engine.alive:
            logger.critical("the engine has died; the replica ends")
            os._exit(1)

    def __del__(self) -> None:
        if hasattr(self, "answering"):
            self.answering.close()


@serve.deployment(max_ongoing_requests=4096, graceful_shutdown_timeout_s=FINISH_SECONDS)
class Front:
    """Hands requests on."""

    def __init__(self, replicas: DeploymentHandle, settings: Settings) -> None:
        logs.to_stderr()
        self.replicas, self.settings, self.keys = replicas, settings, ApiKeys(settings.api_keys)
        self.refusals = Refusals()
        context = serve.get_replica_context()
        self.name = context.replica_id.unique_id
        self.fronts = serve.get_deployment_handle(context.deployment, context.app_name)
        self.under_way = 0
        """Requests that a replica has not answered in full."""
        self.ending = False
        self.held = 0
        """Bytes of all bodies that it has."""
        self.told: dict[str, dict[str, str]] = {}
        """By deployment, what each of its processes said of its metrics when they were last asked."""

    async def __call__(self, request: Request) -> Response:
        began = time.monotonic()
        try:
            if request.url.path == "/metrics":
                self.keys.name(request.headers.get("authorization", ""))
                return await self._metrics()
            if self.ending:
                raise ending()
            if request.method == "POST":  # before its body is read; a replica looks at all of it again
                self.keys.name(request.headers.get("authorization", ""))
            async with self._body(request) as body:
                if self.ending:
                    raise ending()
                with self._counted():
                    return await self._answered(request, body, began)
        except ApiError as refusal:
            error = refusal
        except Exception:
            logger.exception("a request failed")
            error = internal()
        self.refusals.add(request, error, time.monotonic() - began)
        return error.response()

    @contextlib.asynccontextmanager
    async def _body(self, request: Request) -> AsyncIterator[bytearray]:
        most, body = self.settings.max_body_bytes, bytearray()
        try:
            try:
                async with asyncio.timeout(min(BODY_SECONDS, self.settings.request_timeout)):
                    async for piece in request.stream():
                        body += piece
                        self.held += len(piece)
                        if len(body) > most:
                            raise _too_large(most)
                        if self.held > HELD_BODIES * most:
                            raise _busy()
            except TimeoutError:
                raise ApiError(408, "the body of the request did not come in time", code="body_timeout") from None
            except ClientDisconnect:
                raise ApiError(499, "the client has gone") from None
            yield body
        finally:
            self.held -= len(body)

    async def _answered(self, request: Request, body: bytearray, began: float) -> Response:
        """The answer of a replica; of another one where it dies before it has said anything."""
        scope = {name: request.scope[name] for name in SCOPE if name in request.scope}
        ask = self.replicas.options(method_name="ask", stream=True, session_id=beginning(body))
        seconds = self.settings.request_timeout + LAST_SECONDS if body else OTHER_SECONDS
        for left in reversed(range(TRIES)):
            messages: Any = ask.remote(scope, body)
            first = None
            try:
                async with asyncio.timeout(began + seconds - time.monotonic()):
                    start, first = await anext(messages), await anext(messages)
            except BackPressureError:
                raise _busy() from None
            except LOST as lost:
                logger.warning("a replica is lost; %d more tries: %s", left, lost)
                continue
            except DeploymentUnavailableError:
                break
            except (TimeoutError, StopAsyncIteration):  # the latter where the replica's own patience is over
                if not body:
                    break
                # Asked again at once it would take as long again.
                message, headers = "the answer took too long and was broken off", {"x-should-retry": "false"}
                raise ApiError(504, message, code="timeout", headers=headers) from None
            finally:
                if first is None:
                    messages.cancel()
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
            headers.pop("x-request-id", None)  # Ray adds it again
            if not first.get("more_body"):
                return Response(first.get("body", b""), start["status"], headers)
            return StreamingResponse(self._rest(messages, first), start["status"], headers)
        raise unavailable("no replica could answer; ask again later")

    async def _rest(self, messages: Any, first: dict[str, Any]) -> AsyncIterator[bytes]:
        """The pieces of a body; the last is an error where its replica dies."""
        with self._counted():
            try:
                yield first["body"]
                async for message in messages:
                    yield message.get("body", b"")
            except LOST:
                error = unavailable("the server has lost this answer; ask again")
                yield f"data: {json.dumps(error.body())}\n\ndata: [DONE]\n\n".encode()
            finally:
                messages.cancel()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    async def end(self) -> None:
        """Take nothing new and finish what is under way; what is not finished in time is broken off with a word."""
        self.ending = True
        if not await self._at_rest(FINISH_SECONDS - LAST_SECONDS):
            with contextlib.suppress(TimeoutError, DeploymentUnavailableError):
                told = self.replicas.broadcast("break_off")
                await told.results_async(timeout_s=LAST_SECONDS, return_exceptions=True)
            await self._at_rest(LAST_SECONDS)

    async def _at_rest(self, seconds: float) -> bool:
        """Whether nothing is under way any more, after so long at the most."""
        deadline = time.monotonic() + seconds
        while self.under_way and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
        return not self.under_way

    def metrics(self) -> tuple[str, str]:
        """Its name and its metrics, for Prometheus."""
        return self.name, self.refusals.text()

    async def _metrics(self) -> Response:
        await asyncio.gather(self._listen(self.replicas), self._listen(self.fronts))
        texts = {name: text for told in self.told.values() for name, text in told.items()}
        return Response(merged(texts), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _listen(self, deployment: DeploymentHandle) -> None:
        asked = deployment.broadcast("metrics")
        told = self.told.setdefault(deployment.deployment_name, {})
        try:
            answers = await asked.results_async(timeout_s=METRICS_SECONDS, return_exceptions=True)
        except TimeoutError:  # one is slow; what all of them said before is better than nothing
            logger.warning("metrics of %s did not come in time", deployment.deployment_name)
            return
        except DeploymentUnavailableError:  # there is none
            answers = []
        told.clear()
        told.update(one for one in answers if isinstance(one, tuple))


class Refusals:
    """Requests that got no further than the front: counted and logged as the door of a replica does with the others."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "neo_requests", "Requests for answers by how they ended.", ["outcome"], registry=registry
        )
        self.rejections = Counter("neo_rejections", "Requests refused at the door.", ["reason"], registry=registry)
        for outcome in ("refused", *OUTCOMES.values()):
            self.requests.labels(outcome)  # 0 from the beginning, so that the first one is seen as a change
        self.rejections.labels("queue_full")

    def add(self, request: Request, error: ApiError, seconds: float) -> None:
        """Count and log one."""
        outcome = OUTCOMES.get(error.status_code, "refused")
        if request.method == "POST" and request.url.path in ANSWERS:
            self.requests.labels(outcome).inc()
        if outcome == "rejected":
            self.rejections.labels(error.code).inc()
        fields = {
            "request_id": logs.request_id(request.headers.get("x-request-id", "")),
            "method": request.method,
            "path": request.url.path,
            "status": error.status_code,
            "outcome": outcome,
            "seconds": round(seconds, 4),
            "address": request.client.host if request.client else "",
        }
        logs.requests.info("request", extra={"fields": fields | error.facts()})

    def text(self) -> str:
        """In Prometheus' text format."""
        return generate_latest(self.registry).decode()


def _too_large(most: int) -> ApiError:
    message = f"the body has more than {most} bytes"
    return ApiError(413, message, code="body_too_large", headers={"Connection": "close"})


def _busy() -> ApiError:
    message, headers = "the server is busy; try again later", {"Retry-After": "1"}
    return ApiError(429, message, code="queue_full", headers=headers)


def beginning(body: bytes | bytearray) -> str:
    """What stands for a conversation, the same in all its turns: the messages up to its first question, hashed.

    Of a completion it is the prompt's first 256 characters. Nothing, which means any replica, for all else.
    """
    try:
        request = json.loads(body)
        if "messages" in request:
            roles = [message["role"] for message in request["messages"]]
            asked = request["messages"][: roles.index("user") + 1]
        else:
            asked = request["prompt"][:256] if isinstance(request["prompt"], str) else request["prompt"]
    except (ValueError, TypeError, KeyError, RecursionError):  # a replica says what is wrong with it
        return ""
    return hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()


def application(
    load: "Callable[[], ChatModel]", settings: Settings, max_batch: int, gpus: float, replicas: int | None = None
) -> serve.Application:
    """What Ray Serve runs.

    Args:
        load: makes a replica's model with its engine.
        settings: of every replica; `rate_limit` counts in each for itself.
        max_batch: answers that a replica makes at the same time.
        gpus: that a replica takes.
        replicas: how many; unless given as Ray's own configuration says.
    """
    # A replica has its next answers waiting for it; the rest waits here, so that it can still go elsewhere.
    options: dict[str, Any] = {"max_ongoing_requests": 2 * max_batch, "max_queued_requests": settings.max_waiting or 1}
    options["ray_actor_options"] = {"num_cpus": 1, "num_gpus": gpus}
    if replicas is not None:
        options["num_replicas"] = replicas
    return Front.bind(Replica.options(**options).bind(load, settings, max_batch), settings)  # type: ignore[attr-defined]


def build(args: dict[str, Any]) -> serve.Application:
    """The application for `serve run` and `serve deploy`: import path neo.serving.ray_app:build.

    Args:
        args: `model`, `dtype`, `device`, `adapter`, `quantization`, `download` as of `neo.load_model`, `max_batch` and
            `cache_memory` of its engine, `gpus` of a replica, `api_key_file`, and the fields of `Settings`.

    Raises:
        ValueError: there is no such one of them, or the keys cannot be read.
    """
    args = dict(args)
    names = ("dtype", "device", "adapter", "quantization", "download")
    options = {name: args.pop(name) for name in names if name in args}
    model, max_batch, memory = args.pop("model", "neo-demo"), args.pop("max_batch", 16), args.pop("cache_memory", None)
    gpus = args.pop("gpus", 0)
    if file := args.pop("api_key_file", None):
        args["api_keys"] = read_keys(file)
    known = [field.name for field in fields(Settings)]
    for name in args.keys() - set(known):
        raise ValueError(f"args of neo.serving.ray_app has {name!r}{suggestion(name, known)}")
    settings = Settings(**{"name": model.rstrip("/").rpartition("/")[2], **args})
    return application(partial(_load, model, options, memory, max_batch), settings, max_batch, gpus)


def _load(name: str, options: dict[str, Any], cache_memory: int | None, max_batch: int) -> "ChatModel":
    from neo.inference.engine import Engine
    from neo.inference.loading import load_model

    model = load_model(name, **options)
    model.engine = Engine(model.model, model.processor, cache_memory=cache_memory, max_batch=max_batch)
    return model
