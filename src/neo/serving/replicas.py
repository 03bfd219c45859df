"""`neo serve --replicas N`: Ray Serve until a signal comes."""

import logging
import os
import signal
import sys
from collections.abc import Callable

from ray import serve
from ray.exceptions import RayError

from neo.inference.chat import ChatModel
from neo.inference.cluster import gpus_of, start_ray
from neo.serving.ray_app import application
from neo.serving.settings import Settings

logger = logging.getLogger(__name__)


def run_replicas(
    load: Callable[[], ChatModel],
    settings: Settings,
    host: str,
    port: int,
    max_batch: int,
    replicas: int,
    device: str,
) -> int:
    """Serve on this machine, or on the cluster that RAY_ADDRESS names; returns the exit code.

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
        serve.run(application(load, settings, max_batch, gpus_of(device), replicas), name="neo")
        logger.info("ready", extra={"fields": {"model": settings.name, "replicas": replicas}})
        while True:
            signal.pause()
    except SystemExit:
        return 0
    except (RuntimeError, RayError) as error:
        raise ValueError(f"the replicas could not be started ({error})") from error
    finally:
        serve.shutdown()  # replicas finish what they are at
