"""Answers to many records by several processes, on Ray Data: each worker has a model and does what `batch` does alone.

On one machine, or on the cluster that RAY_ADDRESS names, where every machine finds model and records under the same
names. A worker that dies is replaced, and its records are answered by another.
"""

import json
from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

from neo.inference.batch import Task, answer
from neo.inference.chat import ChatModel
from neo.inference.cluster import gpus_of, start_ray

BATCHES_AT_ONCE = 8
"""Records that a worker takes at once, as a multiple of those that its engine answers at the same time."""


def answer_on_ray(
    load: Callable[[], ChatModel], task: Task, records: range, workers: int, max_batch: int, device: str
) -> Iterator[dict[str, Any]]:
    """As `neo.inference.batch.answer`, by so many workers.

    Args:
        load: makes a worker's model.
        task: what is asked.
        records: numbers of records.
        workers: how many.
        max_batch: records that one of them answers at the same time.
        device: of their models, as in `neo.load_model`; unless it is "cpu" each takes a GPU where Ray has any.

    Raises:
        ValueError: Ray is missing, or a worker cannot load its model.
    """
    start_ray(workers + 1)  # one more reads
    import ray.data

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    blocks = ceil(len(records) / (BATCHES_AT_ONCE * max_batch))
    answered = ray.data.range(len(records), override_num_blocks=blocks).map_batches(
        Worker,
        fn_constructor_args=(load, task, records.start),
        batch_size=None,
        concurrency=min(workers, blocks),
        num_gpus=gpus_of(device),
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
