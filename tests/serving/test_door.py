"""The door by itself: what happens to its places whatever becomes of a request."""

import asyncio
from collections.abc import Sequence

import pytest
from serving_tools import log_lines

from neo.serving import door
from neo.serving.admission import Queue
from neo.serving.answering import Answering
from neo.serving.door import Door
from neo.serving.metrics import Metrics
from neo.serving.settings import Settings

SCOPE = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [], "client": ("10.0.0.1", 5)}


BEGIN = {"type": "http.response.start", "status": 200, "headers": []}


WHOLE = {"type": "http.request", "body": b"", "more_body": False}


async def pass_through(
    app,
    queue: Queue,
    draining: bool = False,
    path: str = "/v1/completions",
    body: Sequence[dict] = (WHOLE,),
    **settings: float,
) -> list[dict]:
    """What is sent for a request that an app deals with, the model being ready."""
    coming = list(body)

    async def receive() -> dict:
        return coming.pop(0) if coming else await asyncio.Event().wait()  # type: ignore[return-value]

    answering = Answering(Settings(**settings), Metrics())
    answering.ready = lambda: None  # type: ignore[assignment,method-assign,return-value]
    answering.draining = draining
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    await Door(app, answering, queue)(SCOPE | {"path": path}, receive, send)
    return sent


def test_an_answer_that_nobody_reads_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "LAST_SECONDS", 0)
    queue = Queue(1, 0)

    async def never_ends(scope, receive, send) -> None:
        await receive()
        await send(dict(BEGIN))
        await asyncio.Event().wait()

    sent = asyncio.run(pass_through(never_ends, queue, request_timeout=0.1))
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert queue.taken == 0


@pytest.mark.parametrize("begun", [False, True], ids=["at once", "in the middle"])
def test_a_failure_is_found_under_its_id(caplog: pytest.LogCaptureFixture, begun: bool) -> None:
    queue = Queue(1, 0)

    async def fails(scope, receive, send) -> None:
        await receive()
        assert queue.taken == 1
        if begun:
            await send(dict(BEGIN))
        raise ZeroDivisionError

    with caplog.at_level("INFO"):
        start, *body = asyncio.run(pass_through(fails, queue))
    assert start["status"] == (200 if begun else 500)
    assert [b"x-request-id" in message["body"] for message in body] == ([] if begun else [True])
    told = dict(start["headers"])[b"x-request-id"].decode()
    failure, request = log_lines(caplog.records)
    assert "ZeroDivisionError" in failure["exception"]
    assert failure["request_id"] == request["request_id"] == told
    assert (request["status"], request["outcome"]) == (start["status"], "error")
    assert queue.taken == 0


@pytest.mark.parametrize("begun", [False, True], ids=["waiting", "in the middle"])
def test_a_request_that_the_server_cancels_is_not_ok(caplog: pytest.LogCaptureFixture, begun: bool) -> None:
    async def is_cancelled(scope, receive, send) -> None:
        await receive()
        if begun:
            await send(dict(BEGIN))
        raise asyncio.CancelledError

    with caplog.at_level("INFO"):
        start, *body = asyncio.run(pass_through(is_cancelled, Queue(1, 0), draining=True))
    assert start["status"] == (200 if begun else 503)
    assert [b"ending" in message["body"] for message in body] == ([] if begun else [True])
    assert [line["outcome"] for line in log_lines(caplog.records)] == ["unavailable"]


@pytest.mark.parametrize(("status", "wait"), [(200, 0.9), (400, 1.0), (404, 1.0), (503, 1.0)])
def test_only_answers_tell_how_long_one_takes(status: int, wait: float) -> None:
    queue = Queue(1, 0)

    async def app(scope, receive, send) -> None:
        await receive()
        await send(BEGIN | {"status": status})
        await send({"type": "http.response.body"})

    asyncio.run(pass_through(app, queue))
    assert queue.taken == 0
    assert queue._seconds == pytest.approx(wait, abs=0.05)


def test_other_routes_take_no_place() -> None:
    async def app(scope, receive, send) -> None:
        await send(BEGIN | {"status": 404})
        await send({"type": "http.response.body"})

    assert asyncio.run(pass_through(app, Queue(0, 0), path="/nope"))[0]["status"] == 404


def test_a_body_is_not_read_where_there_is_no_place() -> None:
    queue = Queue(1, 0)
    queue.enter(1)

    async def app(scope, receive, send) -> None:
        pytest.fail("it was let in")

    start, body = asyncio.run(pass_through(app, queue))
    assert start["status"] == 429
    assert b"queue_full" in body["body"]
    assert queue.taken == 1


def test_whoever_sends_slowly_keeps_no_place_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "BODY_SECONDS", 0.05)
    queue = Queue(1, 0)

    async def app(scope, receive, send) -> None:
        await receive()
        assert queue.taken == 0
        await receive()

    start, body = asyncio.run(pass_through(app, queue, body=[WHOLE | {"more_body": True}]))
    assert start["status"] == 408
    assert b"in time" in body["body"]


def test_a_place_that_is_gone_when_the_body_has_come() -> None:
    queue = Queue(1, 0)

    async def app(scope, receive, send) -> None:
        queue.enter(1)
        await receive()
        pytest.fail("it was let in")

    start, body = asyncio.run(pass_through(app, queue, rate_limit=1))
    assert start["status"] == 429
    assert b"queue_full" in body["body"]
    assert queue.taken == 1


def test_whoever_hangs_up_while_sending_has_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope, receive, send) -> None:
        await receive()
        await receive()
        await send(BEGIN | {"status": 400})  # as the framework does, which nobody hears
        await send({"type": "http.response.body"})

    with caplog.at_level("INFO"):
        asyncio.run(pass_through(app, Queue(1, 0), body=[WHOLE | {"more_body": True}, {"type": "http.disconnect"}]))
    assert [line["outcome"] for line in log_lines(caplog.records)] == ["cancelled"]


def test_an_app_out_of_time_is_504(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "LAST_SECONDS", 0)

    async def says_nothing(scope, receive, send) -> None:
        await receive()
        await asyncio.Event().wait()

    start, body = asyncio.run(pass_through(says_nothing, Queue(1, 0), request_timeout=0.05))
    assert start["status"] == 504
    assert b"timeout_error" in body["body"]
