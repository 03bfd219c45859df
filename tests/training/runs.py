"""Runs in processes of their own: several ranks over gloo, and runs that are killed."""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from neo.training import trainer
from neo.training.config import TrainConfig
from neo.training.learner import Learner, Step
from neo.training.trainer import train

# A server that has imported everything forks the processes: they start at once, and no thread of pytest's is in them.
CONTEXT = multiprocessing.get_context("forkserver")
# The last two take seconds, which every process would spend again.
CONTEXT.set_forkserver_preload(["neo.training.trainer", "neo.synthetic", "sklearn.datasets", "peft"])


def on_ranks(size: int, function: Callable[..., None], *arguments: object) -> list[int]:
    """Run a function in `size` processes with the environment that torchrun gives them; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [CONTEXT.Process(target=_as_rank, args=(r, size, port, function, *arguments)) for r in range(size)]
    return _finish(processes)


def apart(function: Callable[..., None], *arguments: object) -> int:
    """Run a function in one process of its own; its exit code."""
    return _finish([CONTEXT.Process(target=_undrawn, args=(function, *arguments))])[0]


def train_and_die(config: TrainConfig, step: int, number: int = signal.SIGKILL) -> None:
    """Train, and send this process a signal in a step, counted from 1."""
    kill_in(step, number)
    train(config)


def terminated(config: TrainConfig) -> int:
    """Train in a job of its own, and stop the job from outside once there are metrics; the exit code."""
    process = CONTEXT.Process(target=_train_as_job, args=(config,))
    process.start()
    metrics = Path(config.output_dir, "metrics.jsonl")
    while process.is_alive() and not (metrics.is_file() and metrics.read_text()):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    process.join(timeout=300)
    process.kill()
    return process.exitcode


def killed_in_a_job(config: TrainConfig, step: int) -> list[int]:
    """Train in a job of its own, killed in a step; the processes of the job that are still there 10 seconds later."""
    process = CONTEXT.Process(target=_die_as_job, args=(config, step))
    process.start()
    process.join(timeout=300)
    assert process.exitcode == -signal.SIGKILL
    for _ in range(100):
        if not (left := _alive(process.pid)):
            break
        time.sleep(0.1)
    return left


def _alive(group: int) -> list[int]:
    """Processes of a group that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
            found += [int(stat.parent.name)] if int(process_group) == group and state != "Z" else []
    return found


def _die_as_job(config: TrainConfig, step: int) -> None:
    os.setsid()
    _undrawn(train_and_die, config, step)


def _train_as_job(config: TrainConfig) -> None:
    os.setsid()
    _undrawn(train, config)


def kill_in(step: int, number: int) -> None:
    """Have a step begin with a signal to this process."""
    normal = Learner.step

    def signalled(self: Learner, done: int, *arguments: Any) -> Step:
        if done + 1 == step:
            os.kill(os.getpid(), number)
        return normal(self, done, *arguments)

    Learner.step = signalled  # type: ignore[method-assign]


def train_quietly(config: TrainConfig) -> None:
    """Train; a process needs a function that returns nothing."""
    train(config)


def _as_rank(rank: int, size: int, port: int, function: Callable[..., None], *arguments: object) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    _undrawn(function, *arguments)


def _undrawn(function: Callable[..., object], *arguments: object) -> None:
    """Call a function in a process where no curves are drawn; see conftest.py."""
    trainer.draw_curves = lambda folder, title: Path()
    function(*arguments)


def _finish(processes: list) -> list[int]:
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        process.kill()
    return [process.exitcode for process in processes]


def files(folder: Path) -> set[str]:
    """The names in a folder."""
    return {path.name for path in folder.iterdir()}
