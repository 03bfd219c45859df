"""A server with the small model, on a free port, in a thread of the tests' own process."""

import base64
import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx2
from openai import OpenAI
from PIL import Image

from neo.inference.chat import ChatModel
from neo.inference.engine import Engine
from neo.serving.logs import JsonLines
from neo.serving.run import Server
from neo.serving.settings import Settings

ROOT = Path(__file__).parents[1]


@dataclass
class Served:
    """A server that answers."""

    server: Server
    url: str
    http: httpx2.Client

    @property
    def engine(self) -> Engine:
        assert self.server.answering.model is not None
        return self.server.answering.model.engine

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", httpx2.URL(self.url).port or 0

    def openai(self, key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def at_rest(self) -> bool:
        """Whether nothing is under way and nothing is held for it."""
        engine = self.engine
        return not (engine.running or engine.waiting or engine.memory.live)


def until(true: Callable[[], object], seconds: float = 60, pause: float = 0.01) -> None:
    """Wait for something that has to come, asking for it after every pause."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it has not come"
        time.sleep(pause)


def log_lines(records: list[logging.LogRecord], logger: str = "neo.serving") -> list[dict]:
    """What the server has logged."""
    return [json.loads(JsonLines().format(record)) for record in records if record.name.startswith(logger)]


def request_lines(records: list[logging.LogRecord]) -> list[dict]:
    """Those of requests for answers."""
    return [line for line in log_lines(records, "neo.serving.requests") if line["method"] == "POST"]


@contextlib.contextmanager
def served(
    load: Callable[[], ChatModel],
    settings: Settings | None = None,
    max_batch: int = 16,
    trusted_proxies: Sequence[str] = (),
) -> Iterator[Served]:
    """A running server; `load` is called as at the command line, while it listens already."""
    given = settings or Settings()
    server = Server(load, given, "127.0.0.1", 0, max_batch, shutdown_seconds=5, trusted_proxies=trusted_proxies)
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        with httpx2.Client(base_url=url, timeout=60) as http:
            until(lambda: server.started)
            yield Served(server, url, http)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def data_url(source: Path | Image.Image | bytes, kind: str = "png") -> str:
    if isinstance(source, Image.Image):
        file = BytesIO()
        source.save(file, "PNG")
        source = file.getvalue()
    data = source if isinstance(source, bytes) else source.read_bytes()
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def about(picture: str, question: str) -> list[dict]:
    """Messages with one question about one picture."""
    shown = {"type": "image_url", "image_url": {"url": picture}}
    return [{"role": "user", "content": [shown, {"type": "text", "text": question}]}]
