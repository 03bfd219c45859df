import json
from pathlib import Path

import pytest

from neo.synthetic import generate
from neo.training.start import load
from neo.training.task_report import TASKS, Score, answers, markdown, score_task, task_report


def test_report_is_written(pt: Path, tmp_path: Path) -> None:
    model, processor = load(pt)
    scores = task_report(model, processor, tmp_path, samples=3, tasks=("colour", "text only"), batch_size=2)
    assert [score.task for score in scores] == ["colour", "text only"]
    written = json.loads((tmp_path / "accuracy.json").read_text())
    assert [row["asked"] for row in written["tasks"]] == [3, 3]
    assert len(written["tasks"][0]["mistakes"]) == 3 - scores[0].right
    assert (tmp_path / "accuracy.md").read_text() == markdown(scores)


def test_answers_do_not_depend_on_the_batch(pt: Path) -> None:
    model, processor = load(pt)
    samples = [generate(0, k, "test", {"color": 1.0, "text": 1.0}) for k in range(5)]
    assert answers(model, processor, samples, 5, 8) == answers(model, processor, samples, 1, 8)


def test_tasks_choose_their_questions(pt: Path) -> None:
    model, processor = load(pt)
    short, long = (score_task(model, processor, f"number, {digits} digits", 4) for digits in ("1 to 3", "4 to 6"))
    assert {len(m["expected"]) <= 3 for m in short.mistakes} <= {True}
    assert {len(m["expected"]) <= 3 for m in long.mistakes} <= {False}
    with pytest.raises(ValueError, match="unknown task 'colr'"):
        score_task(model, processor, "colr")


def test_every_task_finds_questions() -> None:
    for task in TASKS.values():
        assert any(task.accepts(generate(0, k, "test", {task.family: 1.0}).turns[0]) for k in range(40)), task


def test_markdown() -> None:
    assert "| colour | What? | 75.0% | 4 |" in markdown([Score("colour", "What?", 3, 4, [])])
