"""The front and a replica by themselves, without Ray; test_replicas.py has them on it."""

import asyncio
import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ray import serve
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from serving_tools import request_lines
from starlette.requests import Request
from starlette.responses import Response

from neo.inference.chat import ChatModel
from neo.serving import logs, ray_app
from neo.serving.admission import Queue
from neo.serving.answering import Answering
from neo.serving.app import create_app
from neo.serving.metrics import OUTCOMES, REASONS, Metrics
from neo.serving.ray_app import Front, Replica
from neo.serving.settings import Settings

KEY = "0123456789abcdef"
START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"said"}
FULL = BackPressureError(num_queued_requests=1, max_queued_requests=1)
NONE = DeploymentUnavailableError(SimpleNamespace(name="Replica", app_name="neo"))


class Messages:
    """What a replica says: messages, one after the other, and errors; behind the last it hangs."""

    def __init__(self, *messages: object) -> None:
        self.left, self.cancelled = list(messages), False

    async def __anext__(self) -> object:
        if not self.left:
            await asyncio.Event().wait()
        message = self.left.pop(0)
        if isinstance(message, Exception):
            raise message
        return message

    def __aiter__(self) -> "Messages":
        return self

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """In place of a deployment's: the replicas asked, one after the other, and what all of them tell at once."""

    def __init__(self, name: str, *asked: Messages) -> None:
        self.deployment_name, self.asked = name, list(asked)
        self.told: list[object] | Exception = []
        self.called: list[str] = []
        """Methods of all of them."""

    def options(self, **_: object) -> "Handle":
        return self

    def remote(self, scope: object, body: object) -> Messages:
        return self.asked.pop(0)

    def broadcast(self, method: str) -> "Handle":
        self.called.append(method)
        return self

    async def results_async(self, **_: object) -> list[object]:
        if isinstance(self.told, Exception):
            raise self.told
        return self.told


@pytest.fixture
def make_front(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`make_front(*messages of the replicas asked, **settings)`."""
    context = SimpleNamespace(replica_id=SimpleNamespace(unique_id="front-1"), deployment="Front", app_name="neo")
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)
    monkeypatch.setattr(serve, "get_deployment_handle", lambda name, app: Handle(name))
    monkeypatch.setattr(logs, "to_stderr", lambda: None)

    def make(*asked: Messages, **settings: object) -> Any:
        return Front.func_or_class(Handle("Replica", *asked), Settings(**settings))

    return make


def ask(front: Any, *pieces: bytes, path: str = "/v1/chat/completions", key: str = KEY) -> Response:
    """What is answered to a request."""
    return asyncio.run(front(request(*pieces, path=path, key=key)))


def request(*pieces: bytes, path: str = "/v1/chat/completions", key: str = KEY) -> Request:
    """One with a body that comes in pieces; where there is none, it never comes."""
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if waiting:
        waiting[-1]["more_body"] = False

    async def receive() -> Any:
        return waiting.pop(0) if waiting else await asyncio.Event().wait()

    headers = [(b"authorization", f"Bearer {key}".encode())]
    method = "GET" if path == "/metrics" else "POST"
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}
    return Request({**scope, "client": ("10.0.0.1", 1)}, receive)


def error_of(response: Response) -> dict:
    return json.loads(response.body)["error"]


def samples(text: str, name: str) -> dict[str, float]:
    """Values of a metric by its first label, where they are not 0."""
    found = [one for family in text_string_to_metric_families(text) for one in family.samples if one.name == name]
    return {next(iter(one.labels.values())): one.value for one in found if one.value}


@pytest.mark.parametrize(
    "messages", [(), (START,), (StopAsyncIteration(),)], ids=["nothing is said", "only a start", "it gave up itself"]
)
def test_an_answer_over_time_is_504_and_not_to_be_asked_for_again(
    make_front: Callable, monkeypatch: pytest.MonkeyPatch, messages: tuple
) -> None:
    monkeypatch.setattr(ray_app, "LAST_SECONDS", 0)
    slow = Messages(*messages)
    response = ask(make_front(slow, request_timeout=0.05), b"{}")
    assert (response.status_code, error_of(response)["type"]) == (504, "timeout_error")
    assert response.headers["x-should-retry"] == "false"
    assert slow.cancelled


def test_the_replica_has_time_to_say_it_itself(make_front: Callable) -> None:
    said = {**START, "status": 504}

    class Late(Messages):
        async def __anext__(self) -> object:
            await asyncio.sleep(0.06)
            return await super().__anext__()

    response = ask(make_front(Late(said, BODY), request_timeout=0.05), b"{}")
    assert (response.status_code, response.body) == (504, b"said")


def test_a_replica_that_dies_before_it_says_anything_is_not_noticed(make_front: Callable) -> None:
    lost = [Messages(ActorDiedError()), Messages(START, ActorDiedError())]
    response = ask(make_front(*lost, Messages(START, BODY)), b"{}")
    assert (response.status_code, response.body) == (200, b"said")
    assert all(one.cancelled for one in lost)
    assert ask(make_front(*[Messages(ActorDiedError()) for _ in range(ray_app.TRIES)]), b"{}").status_code == 503


def test_what_the_front_refuses_is_counted_and_logged(make_front: Callable, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"api_keys": (KEY,), "max_body_bytes": 1024, "request_timeout": 0.05}
    front = make_front(
        Messages(FULL), Messages(NONE), Messages(ValueError("a slip")), Messages(START, BODY), **settings
    )
    with caplog.at_level("INFO"):
        said = [ask(front, b"{}", key="none"), ask(front), ask(front, bytes(1000), bytes(25))]
        said += [ask(front, b"{}") for _ in range(4)]
    assert [one.status_code for one in said] == [401, 408, 413, 429, 503, 500, 200]
    assert (error_of(said[3])["code"], said[3].headers["retry-after"]) == ("queue_full", "1")
    counted = {"refused": 3, "rejected": 1, "unavailable": 1, "error": 1}
    assert samples(front.metrics()[1], "neo_requests_total") == counted
    assert samples(front.metrics()[1], "neo_rejections_total") == {"queue_full": 1}
    lines = request_lines(caplog.records)
    assert [line["status"] for line in lines] == [401, 408, 413, 429, 503, 500]
    assert lines[0].keys() >= {"request_id", "path", "seconds"}
    assert (lines[0]["error"], lines[0]["address"]) == ("invalid_api_key", "10.0.0.1")
    told = {
        sample.labels["outcome"]
        for sample in front.refusals.requests.collect()[0].samples
        if "outcome" in sample.labels
    }
    assert told <= set(OUTCOMES)
    assert "queue_full" in REASONS


def test_bodies_that_are_held_have_a_limit_together(make_front: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_app, "HELD_BODIES", 2)
    answered = Messages(START, BODY), Messages(START, BODY)
    front = make_front(*answered, max_body_bytes=1024)
    front.held = 2 * 1024 - 10  # by others
    refused = ask(front, b" " * 9, b" " * 2)
    assert (refused.status_code, error_of(refused)["code"]) == (429, "queue_full")
    assert ask(front, b" " * 10).status_code == 200
    assert front.held == 2 * 1024 - 10
    assert ask(make_front(Messages(START, BODY), max_body_bytes=1024), b" " * 1024).status_code == 200


def test_metrics_where_a_replica_is_slow_are_those_of_before(make_front: Callable) -> None:
    front = make_front()
    front.replicas.told = [("one", "# TYPE neo_x gauge\nneo_x 1.0\n"), ActorDiedError()]
    front.fronts.told = [front.metrics()]
    before = ask(front, path="/metrics")
    assert b'neo_x{replica="one"} 1.0' in before.body
    assert b'neo_requests_total{outcome="rejected",replica="front-1"} 0.0' in before.body
    front.replicas.told = TimeoutError()
    assert ask(front, path="/metrics").body == before.body
    front.replicas.told = NONE
    without = ask(front, path="/metrics")
    assert (without.status_code, b"neo_x" in without.body, b"neo_requests" in without.body) == (200, False, True)


@pytest.mark.parametrize("seconds", [60, 0], ids=["in time", "too late"])
def test_at_the_end_nothing_new_is_taken_and_what_runs_is_finished(
    make_front: Callable, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    monkeypatch.setattr(ray_app, "FINISH_SECONDS", seconds)
    monkeypatch.setattr(ray_app, "LAST_SECONDS", 0)

    async def end() -> tuple[list[bytes], Response, bool]:
        messages = Messages(START, {**BODY, "more_body": True})
        front = make_front(messages)
        stream = (await front(request(b"{}"))).body_iterator
        said = [await anext(stream)]
        ending = asyncio.create_task(front.end())
        while not front.ending:
            await asyncio.sleep(0)
        refused = await front(request(b"{}"))
        if seconds:
            messages.left += [BODY, StopAsyncIteration()]
            said += [one async for one in stream]
        await ending
        return said, refused, "break_off" in front.replicas.called

    said, refused, broken_off = asyncio.run(end())
    assert (refused.status_code, error_of(refused)["code"]) == (503, "ending")
    assert (said, broken_off) == ([b"said"] * (2 if seconds else 1), not seconds)


def test_a_replica_ends_with_its_engine(
    fresh: Callable[..., Callable[[], ChatModel]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise SystemExit("killed")

    def leave(code: int) -> None:
        raise InterruptedError(f"exit code {code}")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(ray_app.os, "_exit", leave)
    replica = Replica.func_or_class.__new__(Replica.func_or_class)
    replica.name, replica.answering = "one", Answering(Settings(), Metrics())
    replica.check_health()  # it loads
    replica.answering.use(fresh()())
    replica.app = create_app(replica.answering, Queue(1, 1))
    body = json.dumps({"model": "neo-demo", "prompt": "One", "max_tokens": 2}).encode()
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b"", "headers": headers}

    async def ask() -> list[dict]:
        return [message async for message in replica.ask(scope, bytearray(body))]

    assert [message.get("status") for message in asyncio.run(ask())] == [200, None]
    replica.check_health()
    replica.answering.model.engine._step = die
    with pytest.raises(InterruptedError, match="exit code 1"):
        asyncio.run(ask())  # rather than with a 503
    with pytest.raises(InterruptedError, match="exit code 1"):
        replica.check_health()
