"""Under load, and at its ends: the queue, time, askers who leave, signals, a dead engine."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest
from serving_tools import Served, log_lines, request_lines, served, until

from neo.inference.cache import OutOfMemory
from neo.serving import run
from neo.serving.settings import Settings

LONG = {"model": "neo-demo", "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 900}
ENDLESS = {"name": "endless", "schema": {"type": "string", "minLength": 3000}}
LONG |= {"temperature": 2, "response_format": {"type": "json_schema", "json_schema": ENDLESS}}
SHORT = {"model": "neo-demo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}


@contextlib.contextmanager
def slow_engine(served: Served) -> Iterator[threading.Event]:
    """Steps wait until the event is set."""
    engine, go = served.engine, threading.Event()
    step = engine._step
    engine._step = lambda: (go.wait(), step())  # type: ignore[method-assign]
    try:
        yield go
    finally:
        go.set()
        engine._step = step  # type: ignore[method-assign]


def test_beyond_the_queue_is_429_and_nothing_is_lost(serve) -> None:
    with serve(max_batch=1, max_waiting=2) as served, ThreadPoolExecutor(16) as pool, slow_engine(served) as go:
        asked = [pool.submit(served.http.post, "/v1/chat/completions", json=SHORT) for _ in range(8)]
        until(lambda: sum(one.done() for one in asked) == 5)
        refused = [one.result() for one in asked if one.done()]
        for response in refused:
            assert response.status_code == 429
            assert response.json()["error"]["code"] == "queue_full"
            assert int(response.headers["retry-after"]) >= 1
        with pytest.raises(openai.RateLimitError):
            served.openai().chat.completions.create(**SHORT)
        go.set()
        assert sorted(one.result().status_code for one in asked) == [200] * 3 + [429] * 5
        assert served.http.post("/v1/chat/completions", json=SHORT).status_code == 200
        until(served.at_rest)


def test_no_memory_for_a_cache_is_503_and_others_go_on(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutOfMemory("no room on this device")

    with serve() as served:
        with monkeypatch.context() as context:
            context.setattr(served.engine.memory, "open", full)
            response = served.http.post("/v1/chat/completions", json=SHORT)
        assert response.status_code == 503
        assert "retry-after" in response.headers
        assert "device" not in response.text
        assert served.http.post("/v1/chat/completions", json=SHORT).status_code == 200


def test_answers_count_one_by_one_in_the_queue(serve) -> None:
    with serve(max_batch=2, max_waiting=1) as served:
        many = served.http.post("/v1/chat/completions", json=SHORT | {"n": 4})
        assert (many.status_code, many.json()["error"]["param"]) == (400, "n")
        assert served.http.post("/v1/chat/completions", json=SHORT | {"n": 3}).status_code == 200
        with ThreadPoolExecutor(1) as pool, slow_engine(served) as go:
            first = pool.submit(served.http.post, "/v1/chat/completions", json=SHORT)
            until(lambda: served.engine.waiting or served.engine.running)
            assert served.http.post("/v1/chat/completions", json=SHORT | {"n": 3}).status_code == 429
            go.set()
            assert first.result().status_code == 200


def test_many_askers_of_all_kinds(common: Served, stars: str) -> None:
    image = {"type": "image_url", "image_url": {"url": stars}}
    shown = [{"role": "user", "content": [image, {"type": "text", "text": "How many stars are there?"}]}]

    def ask(number: int) -> int:
        body = SHORT | ({"messages": shown} if number % 2 else {}) | {"stream": number % 3 == 0}
        return common.http.post("/v1/chat/completions", json=body).status_code

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(ask, range(48))) == {200}
    until(common.at_rest)


def test_a_request_that_takes_too_long_is_504(serve) -> None:
    with serve(request_timeout=1.5) as served:
        response = served.http.post("/v1/chat/completions", json=LONG)
        assert response.status_code == 504
        assert response.json()["error"]["type"] == "timeout_error"
        streamed = served.http.post("/v1/chat/completions", json=LONG | {"stream": True})
        assert '"timeout_error"' in streamed.text
        assert streamed.text.endswith("data: [DONE]\n\n")
        until(served.at_rest)
        until(lambda: 'neo_requests_total{outcome="timeout"} 2.0' in served.http.get("/metrics").text)


def test_a_body_that_does_not_come_is_408(serve) -> None:
    with serve(request_timeout=0.5) as served, socket.create_connection(served.address) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        connection.sendall(b"Content-Length: 100\r\n\r\n{")
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def begin(connection: socket.socket, body: str) -> None:
    """Send the head of a request and the first part of its body."""
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
    connection.sendall(f"Content-Length: 1024\r\n\r\n{body}".encode())


def test_bodies_that_do_not_come_hold_no_place_and_few_bytes(serve) -> None:
    with serve(max_batch=1, max_waiting=0, max_body_bytes=1024) as served:
        ask = lambda: served.http.post("/v1/chat/completions", json=SHORT).status_code  # noqa: E731
        with socket.create_connection(served.address) as small, socket.create_connection(served.address) as large:
            begin(small, "{")
            assert ask() == 200
            begin(large, "{" * 1000)
            until(lambda: ask() == 429)
        until(lambda: ask() == 200)
        until(lambda: 'neo_requests_total{outcome="cancelled"} 2.0' in served.http.get("/metrics").text)


def test_an_engine_that_hangs_is_504_in_time(serve) -> None:
    with serve(request_timeout=0.5) as served, slow_engine(served):
        plain = served.http.post("/v1/chat/completions", json=SHORT)
        assert (plain.status_code, plain.headers["x-should-retry"]) == (504, "false")
        streamed = served.http.post("/v1/chat/completions", json=SHORT | {"stream": True})
        assert '"timeout_error"' in streamed.text
        assert streamed.text.endswith("data: [DONE]\n\n")
        assert served.http.get("/health").status_code == 200


def leave(served: Served, body: dict, after: Callable[[], object]) -> None:
    """Ask, and hang up when something has happened."""
    text = json.dumps(body)
    head = ["POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json"]
    with socket.create_connection(served.address) as connection:
        connection.sendall("\r\n".join([*head, f"Content-Length: {len(text)}", "", text]).encode())
        until(after)


@pytest.mark.parametrize("stream", [False, True])
def test_an_asker_who_leaves_frees_the_cache(common: Served, stream: bool) -> None:
    leave(common, LONG | {"stream": stream}, lambda: common.engine.running)
    until(common.at_rest)
    until(lambda: common.server.queue.taken == 0)


def test_an_asker_who_leaves_the_queue_is_forgotten(serve) -> None:
    with serve(max_batch=1) as served, ThreadPoolExecutor(1) as pool, slow_engine(served) as go:
        first = pool.submit(served.http.post, "/v1/chat/completions", json=SHORT)
        until(lambda: served.engine.waiting)
        leave(served, LONG, lambda: len(served.engine.waiting) == 2)
        until(lambda: served.server.queue.taken == 1)  # it holds no place any more
        go.set()
        assert first.result().status_code == 200
        until(served.at_rest)
        until(lambda: 'neo_requests_total{outcome="cancelled"} 1.0' in served.http.get("/metrics").text)


def test_while_it_loads_it_says_so(fresh, caplog: pytest.LogCaptureFixture) -> None:
    loaded = threading.Event()
    load = fresh()
    with caplog.at_level("INFO"), served(lambda: (loaded.wait(), load())[1]) as running:
        for method, path in (("GET", "/health"), ("POST", "/v1/chat/completions"), ("POST", "/analyze")):
            response = running.http.request(method, path)
            assert response.status_code == 503
            assert "loading" in response.json()["error"]["message"]
            assert response.headers["retry-after"]
        assert running.http.get("/version").status_code == 200
        assert "neo_engine_up 0.0" in running.http.get("/metrics").text
        loaded.set()
        until(lambda: running.http.get("/health").status_code == 200)
        assert running.http.post("/v1/chat/completions", json=SHORT).status_code == 200
    [ready] = [line for line in log_lines(caplog.records) if line["message"] == "ready"]
    memory = running.engine.memory
    assert ready["cache_tokens"] == memory.capacity
    assert ready["context"] == running.engine.model.config.text_config.max_position_embeddings
    assert 0.9 * 2**26 < ready["cache_bytes"] <= 2**26
    assert (ready["max_batch"], ready["max_waiting"], ready["keys"], ready["rate_limit"]) == (16, 64, 0, 0)
    assert ready["seconds"] >= 0


def test_a_model_that_cannot_be_loaded_ends_it() -> None:
    def load():
        raise ValueError("there is no such model")

    with pytest.raises(ValueError, match="no such model"):
        run.run(load, Settings(), "127.0.0.1", 0, 16)


OUT_OF_RANGE: list[dict] = [{"max_waiting": -1}, {"request_timeout": 0}, {"decoders": 0}]
OUT_OF_RANGE += [{"media_domains": (host,)} for host in ("http://foo/", "a.example/x", "*", "a.example:443", "a b", "")]
OUT_OF_RANGE += [
    {"origins": (origin,)} for origin in ("https://a.example/", "a.example", "https://a.example/x", "null")
]


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ValueError, match="listened on") as refused:
        run.run(pytest.fail, Settings(), "127.0.0.1", taken.getsockname()[1], 16)
    assert str(refused.value).count("127.0.0.1") == 1


@pytest.mark.parametrize("change", OUT_OF_RANGE, ids=str)
def test_settings_out_of_range(change: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        Settings(**change)


def test_hosts_and_origins() -> None:
    Settings(media_domains=("a.example", "b-c.example."), origins=("*", "https://a.example:8443", "http://[::1]"))


def test_a_dead_engine_is_503_and_the_end(fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(run, "LAST_SECONDS", 1.0)
    with served(fresh()) as running:
        until(lambda: running.http.get("/health").status_code == 200)

        def die() -> None:
            raise SystemExit("killed")

        running.engine._step = die  # type: ignore[method-assign]
        response = running.http.post("/v1/chat/completions", json=SHORT)
        assert response.status_code == 503
        health = running.http.get("/health")
        assert health.status_code == 503
        assert "died" in health.json()["error"]["message"]
        assert "neo_engine_up 0.0" in running.http.get("/metrics").text
        assert running.http.post("/v1/chat/completions", json=SHORT).status_code == 503
        until(lambda: running.server.should_exit)
        assert isinstance(running.server.error, RuntimeError)


@pytest.mark.parametrize("signals", [1, 2], ids=["the time to finish is up", "a second signal"])
def test_whoever_still_waits_at_the_end_is_told(
    fresh, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, signals: int
) -> None:
    monkeypatch.setattr(run, "TELL_SECONDS", 4.5 if signals == 1 else 0)  # of 5
    with caplog.at_level("INFO"), served(fresh(max_batch=2)) as running, ThreadPoolExecutor(3) as pool:
        until(lambda: running.http.get("/health").status_code == 200)
        with slow_engine(running) as go:
            bodies = [LONG, LONG, LONG | {"stream": True}]
            asked = [pool.submit(running.http.post, "/v1/chat/completions", json=body) for body in bodies]
            until(lambda: len(running.engine.waiting) + len(running.engine.running) == 3)
            for _ in range(signals):
                running.server.handle_exit(signal.SIGTERM, None)
            *plain, stream = [one.result() for one in asked]
            go.set()
    for response in plain:
        assert response.status_code == 503
        assert response.json()["error"]["message"] == "the server is ending"
    assert '"the server is ending"' in stream.text
    assert stream.text.endswith("data: [DONE]\n\n")
    assert [line["outcome"] for line in request_lines(caplog.records)] == ["unavailable"] * 3
    ending, ended = [line for line in log_lines(caplog.records) if line["message"].startswith("end")]
    assert ending["signal"] == "SIGTERM"
    assert signals == 2 or ending["running"] + ending["waiting"] == 3
    assert ended["message"] == "ended"
    assert not [record for record in caplog.records if record.exc_info]


# --- as a process of its own ---

PROGRAM = """
import os, sys, threading
from neo.inference.engine import Engine
step = Engine._step
def watched(engine):
    if os.path.exists(sys.argv[1] + "/die"):
        raise SystemExit("killed")
    step(engine)
Engine._step = watched
from neo.cli import main
sys.exit(main(["serve", "--port", sys.argv[2], "--cache-memory", "60000000", "--device", "cpu"]))
"""


@contextlib.contextmanager
def process(folder: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-c", PROGRAM, str(folder), str(port)]
    started = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    url = f"http://127.0.0.1:{port}"

    def healthy() -> bool:
        assert started.poll() is None, started.communicate()[1]
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{url}/health").status_code == 200
        time.sleep(0.1)
        return False

    try:
        until(healthy, 240)
        yield started, url
    finally:
        started.kill()
        started.communicate()


def test_sigterm_finishes_what_runs_and_takes_nothing_new(tmp_path: Path) -> None:
    with process(tmp_path) as (started, url), ThreadPoolExecutor(1) as pool:
        with httpx2.stream(
            "POST", f"{url}/v1/chat/completions", json=LONG | {"stream": True, "max_tokens": 150}, timeout=60
        ) as running:
            lines = running.iter_lines()
            next(lines)
            started.send_signal(signal.SIGTERM)
            rest = pool.submit(list, lines)

            def refused() -> bool:
                try:
                    return httpx2.post(f"{url}/v1/chat/completions", json=SHORT).status_code == 503
                except httpx2.TransportError:
                    return True

            until(refused)
            assert rest.result()[-2:] == ["data: [DONE]", ""]
        assert started.wait(60) == 0


def test_a_killed_engine_ends_the_process_with_an_error(tmp_path: Path) -> None:
    with process(tmp_path) as (started, url):
        (tmp_path / "die").touch()
        assert httpx2.post(f"{url}/v1/chat/completions", json=SHORT, timeout=60).status_code == 503
        with contextlib.suppress(httpx2.TransportError):  # where it has ended already
            assert httpx2.get(f"{url}/health").status_code == 503
        _, log = started.communicate(timeout=60)
        assert started.returncode == 1
        assert "the engine has died" in log
