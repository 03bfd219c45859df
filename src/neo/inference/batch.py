"""Answers to many records, written as they come: `neo batch`.

A record that cannot be answered has its reason in its row. Rows come in the order of the records, so that the
number of those in the file (`neo.inference.batch_file`) says where an interrupted run goes on.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from neo.inference.batch_file import COLUMNS
from neo.inference.chat import ChatModel, whole
from neo.inference.constraint import UnfinishedAnswer
from neo.inference.generation import Generation
from neo.inference.messages import Messages, as_messages
from neo.model.device import compute_with

PREPARE_THREADS = 2
"""Threads that open pictures and prepare prompts while the engine answers."""
AHEAD = 2
"""Records under way, as a multiple of those that the engine answers at the same time."""


class Question(Protocol):
    """A conversation that ends with a question, and the place that it was read from."""

    @property
    def messages(self) -> Messages: ...

    @property
    def where(self) -> str: ...


class Questions(Protocol):
    """Records, each read when it is asked for; raises ValueError where it is broken."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Question: ...


@dataclass(frozen=True)
class Task:
    """What is asked, and how."""

    questions: Questions
    options: dict[str, Any] = field(default_factory=dict)
    """Those of `ChatModel`. With a seed each record has random numbers of its own made of it."""
    system: str | None = None


def answer(model: ChatModel, task: Task, records: Iterable[int]) -> Iterator[dict[str, Any]]:
    """A row for each record, in their order, while the engine has its batch full.

    Raises:
        RuntimeError: the engine has died.
    """
    engine = model.engine.start()
    under_way: deque[_Row] = deque()
    with preparing_threads(PREPARE_THREADS) as threads:
        try:
            for record in records:
                under_way.append(_Row(model, task, record, threads))
                if len(under_way) == AHEAD * engine.max_batch:
                    yield under_way.popleft().finished()
            while under_way:
                yield under_way.popleft().finished()
        finally:
            for row in under_way:
                row.cancel()


def preparing_threads(number: int) -> ThreadPoolExecutor:
    """Threads that open pictures and prepare requests beside an engine's thread.

    Each computes alone: where more threads than cores compute, OpenMP's workers fall asleep between operations, the
    engine's too; see docs/experiments.md.
    """
    return ThreadPoolExecutor(number, "neo-prepare", initializer=compute_with, initargs=(1,))


class _Row:
    """A record on its way to its answer."""

    def __init__(self, model: ChatModel, task: Task, record: int, threads: ThreadPoolExecutor) -> None:
        self.model, self.task = model, task
        self.columns: dict[str, Any] = dict.fromkeys(COLUMNS) | {"record": record}
        self.begun: Future[Generation] = Future()
        try:
            question = task.questions[record]
        except ValueError as error:
            self.begun.set_exception(error)
        else:
            self.columns["source"] = question.where
            self.begun = threads.submit(self._begin, question)

    def _begin(self, question: Question) -> Generation:
        messages = as_messages(question.messages, system=self.task.system)
        request = self.model.request(messages, **self.task.options)
        sampling = request.sampling.numbered(self.columns["record"])
        return self.model.engine.submit(replace(request, sampling=sampling))

    def finished(self) -> dict[str, Any]:
        """Wait for the end, and say what came of it."""
        try:
            done = whole(self.begun.result())
        except Exception as error:
            if not self.model.engine.alive:
                raise
            reason = error.completion.finish_reason if isinstance(error, UnfinishedAnswer) else None
            return self.columns | {"finish_reason": reason, "error": " ".join(str(error).split())}
        return self.columns | {
            "answer": done.text,
            "finish_reason": done.finish_reason,
            "prompt_tokens": done.prompt_tokens,
            "new_tokens": len(done.tokens),
        }

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        if not self.begun.cancel() and self.begun.exception() is None:
            self.begun.result().cancel()
