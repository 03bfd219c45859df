"""`neo serve --replicas N`: Ray Serve until a signal comes."""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from neo.inference.chat import ChatModel
from neo.inference.cluster import gpus_of, start_ray
from neo.serving.ray_app import FINISH_SECONDS, application
from neo.serving.settings import Settings

logger = logging.getLogger(__name__)

NAME = "neo"
"""Of the application."""
LOOK_SECONDS = 5
"""How often it is asked whether Ray lives."""


def run_replicas(
    load: Callable[[], ChatModel],
    settings: Settings,
    host: str,
    port: int,
    max_batch: int,
    replicas: int,
    device: str,
) -> int:
    """Serve on this machine, or on the cluster that RAY_ADDRESS names; returns the exit code, 1 where Ray died.

    Args:
        load: makes a replica's model with its engine.
        settings: of every replica.
        host, port: to listen on.
        max_batch: answers that a replica makes at the same time.
        replicas: how many.
        device: of their models, as in `neo.load_model`; unless it is "cpu" each takes a GPU where Ray has any.

    Raises:
        ValueError: Ray is missing, or the replicas cannot be started.
    """
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "120")  # Ray's 5 s are too few on a busy machine
    start_ray(replicas + 2)
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: sys.exit())  # Ray has set its own
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
        serve.run(application(load, settings, max_batch, gpus_of(device), replicas), name=NAME)
        logger.info("ready", extra={"fields": {"model": settings.name, "replicas": replicas}})
    except SystemExit:
        return 0
    except (RuntimeError, RayError) as error:
        raise ValueError(f"the replicas could not be started ({error})") from error
    else:
        return _until_the_end()
    finally:
        serve.shutdown()


def _until_the_end() -> int:
    """Wait for a signal, then finish what runs; at a second one not even that. Returns the exit code."""
    try:
        while _ray_lives():
            time.sleep(LOOK_SECONDS)
    except SystemExit:
        with contextlib.suppress(SystemExit, TimeoutError, RayServeException, RayError):
            told = serve.get_app_handle(NAME).broadcast("end")
            told.results(timeout_s=2 * FINISH_SECONDS, return_exceptions=True)
            serve.delete(NAME)  # Ray's own proxy stays until the last byte is sent
        return 0
    logger.critical("Ray has died; the server ends")
    return 1


def _ray_lives() -> bool:
    """Whether it does on this machine."""
    here = ray.get_runtime_context().get_node_id()
    try:
        return any(node["Alive"] for node in ray.nodes() if node["NodeID"] == here)
    except (RuntimeError, RayError):
        return False
