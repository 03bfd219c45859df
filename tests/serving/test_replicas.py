"""Two replicas on this machine, started as an operator would; and what of the application needs no Ray."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from ray import serve
from serving_tools import about, data_url, until
from tiny_checkpoint import make_checkpoint

from neo.serving import replicas
from neo.serving.metrics_text import merged
from neo.serving.ray_app import Front, application, beginning, build
from neo.serving.settings import Settings

KEY = "0123456789abcdef"
LONG: dict = {
    "max_tokens": 500,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "story", "schema": {"type": "string", "minLength": 2000}},
    },
}
"""Options of an answer that takes its time."""
PROGRAM = """
import os, sys
from neo.cli import main
from neo.serving import replicas
folder, application = sys.argv[1], replicas.application
def killable(load, *more):
    def load_killable():
        model = load()
        step = model.engine._step
        def watched():
            if os.path.exists(f"{folder}/die-{os.getpid()}"):
                raise SystemExit("killed")
            step()
        model.engine._step = watched
        return model
    return application(load_killable, *more)
replicas.application = killable
sys.exit(main(sys.argv[2:]))
"""
"""`neo` with engines that die where the folder has a file that says so."""


@pytest.fixture(scope="module")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx2.Client, subprocess.Popen, Path]]:
    """A client of two replicas of a tiny model, the process that runs them, and the folder of its files."""
    folder = tmp_path_factory.mktemp("replicas")
    (folder / "keys").write_text(KEY)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["serve", "--replicas", "2", "--model", str(make_checkpoint(folder / "tiny")), "--port", str(port)]
    words += ["--device", "cpu", "--cache-memory", str(2**26), "--api-key-file", str(folder / "keys")]
    words += ["--max-body-bytes", "100000"]
    with (folder / "log").open("w") as log:
        # Ray goes to another replica where one is too busy to say at once how full it is; here it waits.
        deadlines = ("RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S", "RAY_SERVE_MAX_QUEUE_LENGTH_RESPONSE_DEADLINE_S")
        environment = os.environ | dict.fromkeys(deadlines, "60")
        program = [sys.executable, "-c", PROGRAM, str(folder)]
        process = subprocess.Popen([*program, *words], stderr=log, stdout=log, env=environment)
    headers = {"Authorization": f"Bearer {KEY}"}
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, headers=headers) as http:
            until(lambda: process.poll() is not None or _healthy(http), 500, pause=1)
            assert process.poll() is None, (folder / "log").read_text()
            yield http, process, folder
    finally:
        process.terminate()
        process.wait(120)


def _healthy(http: httpx2.Client) -> bool:
    try:
        return http.get("/health").status_code == 200
    except httpx2.TransportError:
        return False


def ask(http: httpx2.Client, messages: list[dict], **options: object) -> httpx2.Response:
    return http.post("/v1/chat/completions", json={"model": "tiny", "messages": messages, "max_tokens": 4, **options})


def by(answer: httpx2.Response) -> str:
    """The replica that answered."""
    assert answer.status_code == 200, answer.text
    return answer.headers["x-served-by"]


def process_of(replica: str) -> psutil.Process:
    """That of a replica, which has its log open."""
    for process in psutil.process_iter():
        try:
            if any(f"Replica_{replica}.log" in file.path for file in process.open_files()):
                return process
        except psutil.Error:
            continue
    raise AssertionError(f"there is no process of {replica}")


@pytest.mark.slow
def test_two_replicas(operated: tuple[httpx2.Client, subprocess.Popen, Path]) -> None:
    http, server, folder = operated
    _both_are_there(http)  # who hands requests on hears of the replicas one by one
    _a_conversation_finds_its_prefix(http)
    _a_dying_replica_loses_nothing(http, lambda process: os.kill(process.pid, signal.SIGKILL))
    _what_a_single_server_does(http)
    _who_hangs_up_is_forgotten(http)
    _both_are_there(http)  # Ray has put another in the place of the one that was killed
    _a_dying_replica_loses_nothing(http, lambda process: (folder / f"die-{process.pid}").touch())
    family = psutil.Process(server.pid).children(recursive=True)
    _what_runs_is_finished(http, server)
    assert server.wait(120) == 0
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive


def _both_are_there(http: httpx2.Client) -> None:
    until(lambda: http.get("/metrics").text.count("neo_engine_up{") == 2, 300, pause=1)


def _a_conversation_finds_its_prefix(http: httpx2.Client) -> None:
    replicas = set()
    for number in range(50):  # that all of so many come to one replica has a chance of 1 in 10^14
        asked = [{"role": "user", "content": f"Question {number} is about a circle, a square and a star."}]
        first = ask(http, asked)
        said = first.json()["choices"][0]["message"]["content"]
        asked += [{"role": "assistant", "content": said}, {"role": "user", "content": "And then?"}]
        second = ask(http, asked)
        assert by(first) == by(second)
        cached = second.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
        assert cached >= first.json()["usage"]["prompt_tokens"] - 1
        replicas.add(by(first))
        if len(replicas) == 2:
            break
    served = {
        sample.labels["replica"]
        for family in text_string_to_metric_families(http.get("/metrics").text)
        for sample in family.samples
        if sample.name == "neo_request_seconds_count"
    }
    assert len(replicas) == 2
    assert served == replicas


def _what_a_single_server_does(http: httpx2.Client) -> None:
    question = [{"role": "user", "content": "Hello"}]
    events = ask(http, question, stream=True).text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    said = "".join(json.loads(one[6:])["choices"][0]["delta"].get("content", "") for one in events[:-2])
    assert said == ask(http, question).json()["choices"][0]["message"]["content"]
    picture = data_url(Path("examples/images/circle.png").read_bytes())
    assert ask(http, about(picture, "What?")).status_code == 200
    refused = {
        401: http.post("/v1/chat/completions", json={}, headers={"Authorization": "Bearer no"}),
        404: http.get("/nothing"),
        413: http.post("/v1/chat/completions", content=b" " * 100_001),
        400: ask(http, []),
    }
    for status, answer in refused.items():
        assert (answer.status_code, "error" in answer.json()) == (status, True)
    nested = http.post("/v1/chat/completions", content=b"[" * 90_000, headers={"Content-Type": "application/json"})
    assert (nested.status_code, nested.json()["error"]["type"]) == (400, "invalid_request_error")
    assert http.get("/metrics", headers={"Authorization": "none"}).status_code == 401
    assert "<html" in http.get("/", headers={"Authorization": "none"}).text
    routes = http.get("/-/routes", headers={"Authorization": "none"})  # Ray's own, which cannot be closed
    assert routes.json() == {"/": "neo"}
    assert http.get("/-/healthz", headers={"Authorization": "none"}).status_code == 200
    assert answer.headers.get_list("x-request-id") != []
    told = http.get("/metrics").text
    refused_by = dict(re.findall(r'neo_requests_total{outcome="refused",replica="(.+)"} (.+)', told))
    [front] = refused_by.keys() - set(re.findall(r'neo_engine_up{replica="(.+)"}', told))
    assert refused_by[front] == "2.0"  # one without a key, one too large


def _a_dying_replica_loses_nothing(http: httpx2.Client, kill: Callable[[psutil.Process], None]) -> None:
    question = [{"role": "user", "content": "Tell a long story."}]
    whole = ask(http, question, **LONG)
    replica = process_of(by(whole))
    streamed = {"model": "tiny", "messages": question, "stream": True, **LONG}
    with ThreadPoolExecutor(1) as pool, http.stream("POST", "/v1/chat/completions", json=streamed) as stream:
        again = pool.submit(ask, http, question, **LONG)
        until(lambda: _running(http, by(whole)) == 2)
        kill(replica)
        rest = stream.read().decode().split("\n\n")
        answer = again.result()
    assert by(answer) != by(whole)
    assert answer.json()["choices"] == whole.json()["choices"]
    assert (
        json.loads(rest[-3].removeprefix("data: "))["error"]["message"] == "the server has lost this answer; ask again"
    )
    assert rest[-2:] == ["data: [DONE]", ""]


def _who_hangs_up_is_forgotten(http: httpx2.Client) -> None:
    streamed = {"model": "tiny", "messages": [{"role": "user", "content": "Go on."}], "stream": True, **LONG}
    with http.stream("POST", "/v1/chat/completions", json=streamed) as stream:
        served = stream.headers["x-served-by"]
        until(lambda: _running(http, served) == 1)
    until(lambda: _running(http, served) == 0)  # nobody waits for it any more


def _what_runs_is_finished(http: httpx2.Client, server: subprocess.Popen) -> None:
    streamed = {"model": "tiny", "messages": [{"role": "user", "content": "Go on."}], "stream": True, **LONG}
    with http.stream("POST", "/v1/chat/completions", json=streamed) as stream:
        server.terminate()
        events = stream.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert '"finish_reason": "length"' in events[-3]


def _running(http: httpx2.Client, replica: str) -> int:
    """Answers under way."""
    line = re.search(rf'^neo_requests_running{{replica="{replica}"}} (.+)$', http.get("/metrics").text, re.MULTILINE)
    return int(float(line[1])) if line else -1


def test_it_ends_with_an_error_where_ray_has_died(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alive, shut_down = iter([True, False]), []
    here = SimpleNamespace(get_node_id=lambda: "here")
    nodes = lambda: [{"NodeID": "here", "Alive": next(alive)}, {"NodeID": "there", "Alive": True}]  # noqa: E731
    monkeypatch.setattr(replicas, "start_ray", lambda _: None)
    monkeypatch.setattr(replicas, "signal", SimpleNamespace(SIGINT=2, SIGTERM=15, signal=lambda *_: None))
    monkeypatch.setattr(replicas, "ray", SimpleNamespace(nodes=nodes, get_runtime_context=lambda: here))
    monkeypatch.setattr(replicas, "LOOK_SECONDS", 0)
    for name in ("start", "run"):
        monkeypatch.setattr(serve, name, lambda *_, **__: None)
    monkeypatch.setattr(serve, "shutdown", lambda: shut_down.append(True))
    assert replicas.run_replicas(lambda: None, Settings(), "127.0.0.1", 0, 1, 2, "cpu") == 1
    assert shut_down
    assert caplog.records[-1].message == "Ray has died; the server ends"


def body(**request: object) -> bytes:
    return json.dumps(request).encode()


def test_the_beginning_is_that_of_all_turns() -> None:
    system, first = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"}
    answer, second = {"role": "assistant", "content": "1"}, {"role": "user", "content": "Two?"}
    turns = [beginning(body(model="m", messages=[system, first, *more])) for more in ([], [answer, second])]
    assert turns[0] == turns[1] != beginning(body(messages=[system, second]))
    assert beginning(body(prompt="x" * 300)) == beginning(body(prompt="x" * 256))
    for nothing in (
        b"[" * 100_000,
        b"",
        b"--form",
        b"[]",
        b"3",
        body(messages=[]),
        body(messages=[answer]),
        body(messages=[3]),
        body(),
    ):
        assert beginning(nothing) == ""


def test_metrics_of_replicas_keep_their_values_and_names() -> None:
    text = '# HELP neo_x_total X.\n# TYPE neo_x_total counter\nneo_x_total{{a="b"}} {}\n'
    told = merged({"one": text.format(1.0), "two": text.format(2.0)}).decode()
    assert told.count("# TYPE neo_x_total counter") == 1
    assert 'neo_x_total{a="b",replica="one"} 1.0' in told
    assert 'neo_x_total{a="b",replica="two"} 2.0' in told


def test_an_application_by_ray_s_own_configuration() -> None:
    front = build(
        {"model": "neo-demo", "dtype": "bf16", "max_batch": 4, "gpus": 0.5, "max_waiting": 3, "rate_limit": 7}
    )
    replica = front._bound_deployment.init_args[0]._bound_deployment
    assert front._bound_deployment.init_args[1] == Settings(name="neo-demo", max_waiting=3, rate_limit=7)
    assert (replica.ray_actor_options["num_gpus"], replica.max_ongoing_requests) == (0.5, 8)
    assert front._bound_deployment.func_or_class.__name__ == Front.func_or_class.__name__
    with pytest.raises(ValueError, match=r"max_wating.*did you mean max_waiting"):
        build({"max_wating": 3})
    fixed = application(lambda: None, Settings(), 2, 0, replicas=3)
    assert fixed._bound_deployment.init_args[0]._bound_deployment.num_replicas == 3
