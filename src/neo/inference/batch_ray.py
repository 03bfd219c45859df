"""Answers to many records by several processes, on Ray Data: each worker has a model and does what `batch` does alone.

On one machine, or on the cluster that RAY_ADDRESS names, where every machine finds model and records under the same
names. A worker that dies is replaced, and its records are answered by another.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

import torch

from neo.inference.batch import Task, answer
from neo.inference.chat import ChatModel

BATCHES_AT_ONCE = 8
"""Records that a worker takes at once, as a multiple of those that its engine answers at the same time."""


def answer_on_ray(
    load: Callable[[], ChatModel], task: Task, records: range, workers: int, max_batch: int
) -> Iterator[dict[str, Any]]:
    """As `neo.inference.batch.answer`, by so many workers, each on a GPU of its own where there are GPUs.

    Args:
        load: makes a worker's model.
        task: what is asked.
        records: numbers of records.
        workers: how many.
        max_batch: records that one of them answers at the same time.

    Raises:
        ValueError: Ray is missing, or a worker cannot load its model.
    """
    try:
        import ray.data
    except ImportError as error:
        raise ValueError("several workers need Ray: pip install 'neo-vlm[scale]'") from error
    start_ray(workers)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    blocks = ceil(len(records) / (BATCHES_AT_ONCE * max_batch))
    answered = ray.data.range(len(records), override_num_blocks=blocks).map_batches(
        Worker,
        fn_constructor_args=(load, task, records.start),
        batch_size=None,
        concurrency=min(workers, blocks),
        num_gpus=int(torch.cuda.is_available()),
    )
    for row in answered.iter_rows():
        content = json.loads(row["row"])
        if "problem" in content:
            raise ValueError(content["problem"])
        yield content


class Worker:
    """One process with a model."""

    problem = ""
    """Why it has none."""

    def __init__(self, load: Callable[[], ChatModel], task: Task, first: int) -> None:
        self.task, self.first = task, first
        try:
            self.model = load()
        except ValueError as error:  # handed on as a sentence; Ray would try it again, and wrap it in pages
            self.problem = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """The rows of some records, as JSON: whether a column is empty differs between batches."""
        if self.problem:
            return {"row": [json.dumps({"problem": self.problem})]}
        records = [self.first + int(number) for number in batch["id"]]
        return {"row": [json.dumps(row) for row in answer(self.model, self.task, records)]}


def start_ray(workers: int) -> None:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine, for this process alone.

    Nothing is reported to anybody.
    """
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if ray.is_initialized():
        return
    own: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": 1 + max(workers, os.cpu_count() or 1)}
    ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR, **own)
