"""Every task has questions, and only its own."""

from neo.synthetic import generate
from neo.synthetic.tasks import TASKS


def test_every_task_finds_questions() -> None:
    for task in TASKS.values():
        assert any(task.accepts(generate(0, k, "test", {task.family: 1.0}).turns[0]) for k in range(40)), task
