"""Ray, for more than one process: `neo batch --workers`, `neo serve --replicas`."""

import logging
import os
from typing import Any

TRIES = 3
"""How often Ray is started: it gives up where its own processes take more than 15 seconds, as on a busy machine."""


def start_ray(processes: int) -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine for as long as this process runs.

    One of its own has no dashboard, and no process on another machine. Nothing is reported to anybody.

    Args:
        processes: how many of ours are to run at the same time, each counted as a CPU.

    Raises:
        ValueError: Ray is missing, or does not start.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise ValueError("several processes need Ray: pip install 'neo-vlm[scale]'") from error
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_worker_niceness", "0")  # by default all else on the machine goes before the workers
    own: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):
        cpus = max(processes, os.cpu_count() or 1)
        # "local": otherwise Ray joins a cluster that somebody has started on this machine, or looks for one that was.
        own = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    for left in reversed(range(TRIES)):
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **own)
            return
        except Exception as error:
            ray.shutdown()
            if not left:
                raise ValueError(f"Ray does not start ({' '.join(str(error).split())})") from error


def gpus_of(device: str) -> int:
    """How many of the GPUs that Ray has a process takes whose model is on this device, named as in `neo.load_model`."""
    import ray

    return int(device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1)
