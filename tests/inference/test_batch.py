"""Many records through one engine, and through workers on Ray."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import neo
from neo.cli import main
from neo.data.questions import Questions
from neo.inference.batch import Task, answer
from neo.inference.batch_file import COLUMNS
from neo.inference.chat import ChatModel

TOKENS = 6
COLORS = ("red", "green", "blue", "white", "black", "yellow")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions of all kinds; record 2 has no picture where it names one, 4 asks nothing, 5 is no JSON."""
    folder = tmp_path_factory.mktemp("records")
    for color in COLORS:
        Image.new("RGB", (64, 64), color).save(folder / f"{color}.png")
    asked = [{"image": f"{color}.png", "question": f"What color? {color}"} for color in COLORS] * 2
    lines = [json.dumps(one) for one in asked]
    lines[2] = json.dumps({"image": "none.png", "question": "What?"})
    lines[4] = json.dumps({"image": "red.png"})
    lines[5] = '{"question": '
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "in.jsonl"


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Iterator[ChatModel]:
    model = neo.load_model(str(tiny_checkpoint), device="cpu")
    yield model
    model.engine.close()


def task_of(records: Path, **options: object) -> Task:
    return Task(Questions(str(records)), {"max_new_tokens": TOKENS, **options})


@pytest.fixture(scope="module")
def rows(model: ChatModel, records: Path) -> list[dict]:
    return list(answer(model, task_of(records), range(12)))


def test_each_is_answered_as_alone(model: ChatModel, records: Path, rows: list[dict]) -> None:
    questions = Questions(str(records))
    assert [row["record"] for row in rows] == list(range(12))
    for row in rows:
        if row["record"] in (2, 4, 5):
            continue
        alone = model.answer(questions[row["record"]].messages, max_new_tokens=TOKENS)
        assert (row["answer"], row["finish_reason"], row["new_tokens"], row["error"]) == (
            alone.text,
            alone.finish_reason,
            len(alone.tokens),
            None,
        )
        assert row["source"] == f"{records}, line {row['record'] + 1}"


def test_bad_records_are_named(rows: list[dict], records: Path) -> None:
    bad = {row["record"]: row["error"] for row in rows if row["error"] is not None}
    assert bad.keys() == {2, 4, 5}
    assert "none.png" in bad[2]
    assert f"{records}, line 5: the record asks nothing" in bad[4]
    assert f"{records}, line 6: not JSON" in bad[5]
    assert all(rows[number]["answer"] is None and rows[number].keys() == COLUMNS.keys() for number in bad)


def test_those_that_are_left_come_to_the_same(model: ChatModel, records: Path, rows: list[dict]) -> None:
    assert list(answer(model, task_of(records), range(7, 12))) == rows[7:]
    drawn = task_of(records, temperature=1.0, seed=3)
    whole = list(answer(model, drawn, range(12)))
    assert list(answer(model, drawn, range(7, 12))) == whole[7:]
    assert whole[0]["answer"] != whole[6]["answer"]  # of the same question, by other random numbers


def test_an_answer_that_does_not_come_to_its_form_is_none(model: ChatModel, records: Path) -> None:
    [row] = answer(model, task_of(records, regex="a{50}"), [0])
    assert (row["answer"], row["finish_reason"]) == (None, "length")
    assert "broken off" in row["error"]


def test_what_nobody_waits_for_is_cancelled(model: ChatModel, records: Path) -> None:
    rows = answer(model, task_of(records), range(12))
    next(rows)
    rows.close()
    assert next(iter(answer(model, task_of(records), [0])))["error"] is None
    assert not model.engine.waiting


class DiesOnce:
    """Records of which one ends its process the first time that it is read."""

    def __init__(self, records: Path) -> None:
        self.questions, self.died = Questions(str(records)), records.with_name("died")

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> object:
        if index == 9 and not self.died.exists():
            self.died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.questions[index]


def test_workers_on_ray_give_the_same_rows_also_where_one_dies(
    tiny_checkpoint: Path, records: Path, rows: list[dict]
) -> None:
    import ray

    from neo.inference.batch_ray import answer_on_ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers do not find this file
    load = partial(neo.load_model, str(tiny_checkpoint), device="cpu")
    task = Task(DiesOnce(records), {"max_new_tokens": TOKENS})
    try:
        assert list(answer_on_ray(load, task, range(1, 12), workers=2, max_batch=1, device="cpu")) == rows[1:]
        assert records.with_name("died").exists()
        output = records.with_name("out.jsonl")
        words = ["batch", "--data", str(records), "--output", str(output), "--model", str(tiny_checkpoint)]
        words += ["--device", "cpu", "--max-new-tokens", str(TOKENS), "--workers", "2", "--max-batch", "1"]
        assert main(words) == 1  # some records cannot be answered
        assert [json.loads(line) for line in output.read_text().splitlines()] == rows
    finally:
        ray.shutdown()
