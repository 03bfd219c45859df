"""`neo serve` at the command line; the server itself is tested in tests/serving."""

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neo.cli import main
from neo.serving import logs, replicas, run
from neo.serving.settings import Settings


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What servers would be run with."""
    calls: list[tuple] = []
    monkeypatch.setattr(run, "run", lambda *arguments: calls.append(arguments) or 0)
    monkeypatch.setattr(logs, "to_stderr", lambda: None)
    return calls


def test_the_options_are_the_settings(started: list[tuple], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef\n")
    words = [
        "serve",
        "--host",
        "0.0.0.0",
        "--port",
        "80",
        "--max-batch",
        "2",
        "--max-waiting",
        "3",
        "--rate-limit",
        "4",
    ]
    words += ["--request-timeout", "5.5", "--max-body-bytes", "6000", "--max-images", "7", "--max-image-pixels", "8000"]
    words += ["--api-key-file", str(keys), "--allow-media-domain", "a.example, b.example", "--media-redirects", "9"]
    words += [
        "--allow-origin",
        "https://c.example",
        "--served-model-name",
        "small",
        "--trusted-proxies",
        "10.0.0.1,10.1.0.0/16",
    ]
    words += ["--cache-memory", "50000000"]
    assert main(words) == 0
    [(load, settings, *where)] = started
    assert where == ["0.0.0.0", 80, 2, ("10.0.0.1", "10.1.0.0/16")]
    assert settings == Settings(
        name="small",
        max_waiting=3,
        request_timeout=5.5,
        max_body_bytes=6000,
        max_images=7,
        max_image_pixels=8000,
        api_keys=("0123456789abcdef",),
        rate_limit=4,
        media_domains=("a.example", "b.example"),
        media_redirects=9,
        origins=("https://c.example",),
    )
    engine = load().engine
    assert (engine.max_batch, engine.memory.capacity > 0) == (2, True)


def test_without_options_it_is_safe(started: list[tuple]) -> None:
    assert main(["serve"]) == 0
    [(_, settings, host, port, _, proxies)] = started
    assert (settings, host, port, proxies) == (Settings(), "127.0.0.1", 8000, ())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "neo-dmeo"], "neo-dmeo"),
        (["--api-key-file", "/nowhere/keys"], "cannot be read"),
        (["--max-batch", "0"], "max-batch"),
        (["--replicas", "0"], "--replicas 0 must be at least 1"),
        (["--max-waiting", "-1"], "max_waiting"),
        (["--port", "many"], "port"),
        (["--allow-media-domain", "http://foo/, a.example"], "--allow-media-domain"),
        (["--allow-origin", "https://a.example/"], "--allow-origin"),
        (["--trusted-proxies", "proxy.example"], "--trusted-proxies"),
        (["--trusted-proxies", "10.0.0.1", "--replicas", "2"], "--trusted-proxies goes without --replicas"),
    ],
    ids=str,
)
def test_mistakes_are_one_sentence(
    refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch, words: list[Any], said: str
) -> None:
    monkeypatch.setattr(logs, "to_stderr", lambda: None)
    assert said in refuse("serve", *words)


@pytest.mark.parametrize("words", [("--max-batch", "0"), ("--api-key-file", "/nowhere/keys")], ids=str)
def test_some_are_told_before_the_slow_imports(
    refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, str]
) -> None:
    monkeypatch.setitem(sys.modules, "neo.serving.run", None)
    assert "neo-vlm[serve]" not in refuse("serve", *words)


def test_a_port_that_is_taken(refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "to_stderr", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot be listened on" in refuse("serve", "--port", taken.getsockname()[1])


def test_a_missing_extra_is_named(refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "neo.serving.run", None)
    assert "neo-vlm[serve]" in refuse("serve")


def test_replicas_are_run_on_ray(started: list[tuple], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "run_replicas", run.run)
    assert main(["serve", "--replicas", "2", "--max-batch", "4", "--device", "cpu"]) == 0
    [(_, settings, *rest)] = started
    assert (settings, rest) == (Settings(), ["127.0.0.1", 8000, 4, 2, "cpu"])


def test_ray_missing_is_told(refuse: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "to_stderr", lambda: None)
    monkeypatch.setitem(sys.modules, "neo.serving.replicas", None)
    assert "neo-vlm[serve,scale]" in refuse("serve", "--replicas", "2")
