"""Running the server: load, answer, watch the engine, end in order."""

import asyncio
import ipaddress
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import uvicorn

from neo.inference.chat import ChatModel
from neo.model.sizes import cache_bytes_per_token
from neo.serving.admission import Queue
from neo.serving.answering import Answering
from neo.serving.app import create_app
from neo.serving.metrics import Metrics, about
from neo.serving.settings import Settings

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
"""How often the engine is looked at."""
LAST_SECONDS = 2.0
"""How long a server with a dead engine goes on to say so at /health before it ends."""
SHUTDOWN_SECONDS = 30
"""How long running answers have when the server is told to end."""
TELL_SECONDS = 2.0
"""The last of them, in which those that are not finished are broken off with a word."""


class Server(uvicorn.Server):
    """A server that listens before it loads, says 503 while it does, and ends with its engine."""

    def __init__(
        self,
        load: Callable[[], ChatModel],
        settings: Settings,
        host: str,
        port: int,
        max_batch: int,
        shutdown_seconds: int = SHUTDOWN_SECONDS,
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        self.answering = Answering(settings, Metrics())
        self.error: BaseException | None = None
        """Why it ended, where nobody told it to."""
        self.queue = Queue(max_batch, settings.max_waiting)
        app = create_app(self.answering, self.queue)
        super().__init__(
            uvicorn.Config(
                app,
                host,
                port,
                log_config=None,
                access_log=False,  # the door has a better one
                server_header=False,
                lifespan="off",
                proxy_headers=bool(trusted_proxies),
                forwarded_allow_ips=list(trusted_proxies),
                timeout_graceful_shutdown=shutdown_seconds,
            )
        )
        self._load = load
        self._signal: str | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        watch = asyncio.create_task(self._watch())
        try:
            await super().serve(sockets)
        finally:
            watch.cancel()
            await asyncio.to_thread(self.answering.close)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what runs."""
        seconds = self.config.timeout_graceful_shutdown or 0
        self._log("ending", signal=self._signal)
        self._loop.call_later(seconds - TELL_SECONDS, self.answering.break_off)
        await super().shutdown(sockets)
        self._log("ended")

    def _log(self, message: str, **fields: Any) -> None:
        engine = self.answering.model.engine if self.answering.model else None
        counts = {"running": len(engine.running), "waiting": len(engine.waiting)} if engine else {}
        logger.info(message, extra={"fields": fields | counts})

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal: end in order; at the second one at once. Not kept, so that an ordered end is exit code 0."""
        self.force_exit = self.should_exit
        self._signal = signal.Signals(sig).name
        self.answering.draining = self.should_exit = True
        if self.force_exit:
            self._loop.call_soon_threadsafe(self.answering.break_off)

    async def _watch(self) -> None:
        """Load the model, then see whether its engine lives."""
        try:
            began = time.monotonic()
            model = await _in_daemon(self._load)
            await _in_daemon(lambda: self.answering.use(model))
            logger.info(
                "ready", extra={"fields": self._capacity(model) | {"seconds": round(time.monotonic() - began, 1)}}
            )
            while model.engine.alive:
                await asyncio.sleep(LOOK_SECONDS)
            logger.critical("the engine has died; the server ends")
            self.error = RuntimeError("the engine has died")
            await asyncio.sleep(LAST_SECONDS)
        except Exception as error:  # noqa: BLE001 - raised by `run`
            self.error = error
        self.should_exit = True

    def _capacity(self, model: ChatModel) -> dict[str, Any]:
        """For the log: what this server can do, and who may ask."""
        settings, memory = self.answering.settings, model.engine.memory
        return {
            "model": settings.name,
            **about(model),
            "max_batch": self.queue.running,
            "max_waiting": settings.max_waiting,
            "cache_tokens": memory.capacity,
            "cache_bytes": memory.capacity * cache_bytes_per_token(memory.config, memory.dtype),
            "keys": len(settings.api_keys),
            "rate_limit": settings.rate_limit,
        }


def run(
    load: Callable[[], ChatModel],
    settings: Settings,
    host: str,
    port: int,
    max_batch: int,
    trusted_proxies: Sequence[str] = (),
) -> int:
    """Serve until a signal comes; returns the exit code, 1 where the engine died.

    Args:
        load: makes the model with its engine.
        settings: limits and doors.
        host, port: to listen on.
        max_batch: answers that the engine makes at the same time.
        trusted_proxies: addresses, or nets, whose X-Forwarded-For says who asks.

    Raises:
        ValueError: the model cannot be loaded, the port cannot be listened on, or a proxy has no such address.
    """
    for proxy in trusted_proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError as error:
            raise ValueError(f"--trusted-proxies: {error}; give addresses or nets such as 10.0.0.0/8") from None
    server = Server(load, settings, host, port, max_batch, trusted_proxies=trusted_proxies)
    listening = _listen(host, port)
    logger.info("listening", extra={"fields": {"host": host, "port": listening.getsockname()[1]}})
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:  # uvloop, where it is installed
        runner.run(server.serve([listening]))
    if isinstance(server.error, ValueError):
        raise server.error
    if server.error is not None:
        logger.critical("ended: %s", server.error, exc_info=server.error)
        return 1
    return 0


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", error)).partition(" (while")[0]  # behind it stands the address again
        raise ValueError(f"--host {host} --port {port} cannot be listened on ({reason})") from error


async def _in_daemon(work: Callable[[], Any]) -> Any:
    """In a thread that the process does not wait for when it ends: loading can take minutes."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def finish(result: Any, error: BaseException | None) -> None:
        if not done.done():
            done.set_result(result) if error is None else done.set_exception(error)

    def target() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as raised:  # noqa: BLE001 - raised to whoever waits
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=target, name="neo-load", daemon=True).start()
    return await done
