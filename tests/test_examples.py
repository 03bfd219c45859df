"""Every example runs as it stands, and its pictures are what the script draws."""

import ast
import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image, ImageChops

from neo.training.metrics import read_metrics

EXAMPLES = Path(__file__).parents[1] / "examples"
QUESTIONS = json.loads((EXAMPLES / "images" / "questions.json").read_text())
PROGRAMS = ("ask_pictures", "conversation", "transformers_pipeline", "finetune_and_compare", "trl_sft")
USE_CASES = (
    "batch_folder",
    "content_moderation",
    "document_understanding",
    "few_shot",
    "homework_help",
    "image_qa",
    "medical_triage",
)
"""Shown by the form of what they print: the answers in it are better with every new neo-demo."""


def run(program: str, folder: Path, *words: str) -> str:
    """What an example says, called from another folder."""
    command = [sys.executable, str(EXAMPLES / f"{program}.py"), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run an example in this process, which knows torch already; gives what it prints."""

    def said(program: str, *words: Any) -> str:
        runpy.run_path(str(EXAMPLES / f"{program}.py"))["main"](*map(str, words))
        return capsys.readouterr().out

    return said


def test_no_example_is_left_out() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*PROGRAMS, *USE_CASES, "make_images", "arrows"}


@pytest.mark.parametrize("program", [*USE_CASES, "conversation", "finetune_and_compare"])
def test_use_cases_say_what_models_can_and_cannot_do(program: str) -> None:
    text = (EXAMPLES / f"{program}.py").read_text()
    assert len(text.splitlines()) <= 52
    words = ast.get_docstring(ast.parse(text)) or ""
    assert "neo-demo" in words
    assert re.search(r"NEO-(ov-)?[29]B-SFT", words)


def test_asking_about_the_pictures(tmp_path: Path) -> None:
    said = run("ask_pictures", tmp_path)
    assert all(one["image"] in said for one in QUESTIONS)
    found = re.search(r"(\d+) of (\d+) as expected", said)
    assert found is not None
    assert int(found[2]) == len(QUESTIONS)
    assert (
        int(found[1]) >= 5
    )  # shapes, a count, a digit, a number; words, charts and receipts it has not learned (see accuracy.md)


def test_one_question(said: Callable[..., str]) -> None:
    assert re.fullmatch(r".+\n", said("image_qa"))


def test_a_folder(said: Callable[..., str], tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "images" / "circle.png", tmp_path / "b.PNG")
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("not asked")
    broken, whole = map(json.loads, said("batch_folder", tmp_path, "What color is the circle?").splitlines())
    assert broken["image"] == "a.png"
    assert "a.png" in broken["error"]
    assert whole.keys() == {"image", "answer"}
    assert whole["image"] == "b.PNG"
    assert whole["answer"]


def test_a_receipt_keeps_to_the_schema(said: Callable[..., str]) -> None:
    answer, _, sums = said("document_understanding").strip().rpartition("\n")
    schema = runpy.run_path(str(EXAMPLES / "document_understanding.py"))["SCHEMA"]
    jsonschema.validate(json.loads(answer), schema)
    assert sums in ("the prices add up", "the prices do not add up: check it")


def test_moderation_keeps_to_the_schema_and_leaves_doubt_to_people(said: Callable[..., str]) -> None:
    answer, _, decision = said("content_moderation").strip().rpartition("\n")
    schema = runpy.run_path(str(EXAMPLES / "content_moderation.py"))["SCHEMA"]
    jsonschema.validate(judgement := json.loads(answer), schema)
    assert (decision == "decision: publish") == (judgement["risk"] == "low")


def test_triage_begins_with_its_disclaimer_and_the_most_urgent(said: Callable[..., str]) -> None:
    lines = said("medical_triage").splitlines()
    assert lines[0].startswith("This is not medical advice and not a diagnosis.")
    levels = [line.split()[0] for line in lines[2:]]
    assert len(levels) == 3
    assert levels == sorted(levels, key=["now", "today", "routine"].index)


def test_homework_is_a_conversation(said: Callable[..., str]) -> None:
    hint, _, exercise, _ = said("homework_help").splitlines()
    assert hint == "> Give me a hint, not the answer: What is 2 + 3?"
    assert exercise == "> What is 2 + 3?"


def test_few_shot(said: Callable[..., str]) -> None:
    assert re.fullmatch(r"with 0 examples: .+\nwith 2 examples: .+\n", said("few_shot"))


def test_a_conversation(said: Callable[..., str]) -> None:
    questions = ["> What color is the circle?", "> What shape is red?"]
    assert said("conversation").splitlines()[::2] == questions


def test_transformers_alone(tmp_path: Path) -> None:
    assert [line.split()[-1] for line in run("transformers_pipeline", tmp_path).splitlines()] == [
        "red",
        "red",
    ]


def test_a_new_task(tmp_path: Path) -> None:
    """Scaled down to 18 steps; the whole of it is told in its docstring."""
    said = run("finetune_and_compare", tmp_path, "48", "3")
    line = r"[\d.]+% right, for instance '(up|down|left|right)' is called .*\n"
    assert re.fullmatch(rf"before: {line}after:  {line}", said)
    lines = read_metrics(tmp_path / "runs" / "arrows")
    assert lines[-1]["step"] == 18
    assert lines[-1]["loss"] < lines[0]["loss"] / 2  # measured: 0.36 after 4.30


def test_trl(tmp_path: Path) -> None:
    said = run("trl_sft", tmp_path, "3")  # TRL writes lines of its own
    found = re.search(r"^loss ([\d.]+) at first, ([\d.]+) after 3 steps\nWhich way", said, re.MULTILINE)
    assert found is not None
    assert float(found[2]) < float(found[1])


def test_the_pictures_are_what_the_script_draws(tmp_path: Path) -> None:
    script = runpy.run_path(str(EXAMPLES / "make_images.py"))
    script["main"].__globals__["IMAGES"] = tmp_path
    script["main"]()
    assert json.loads((tmp_path / "questions.json").read_text()) == QUESTIONS
    for path in sorted(tmp_path.glob("*.png")):
        with Image.open(path) as drawn, Image.open(EXAMPLES / "images" / path.name) as committed:
            assert ImageChops.difference(drawn, committed).getbbox() is None, path.name


@pytest.mark.parametrize("name", [one["image"] for one in QUESTIONS])
def test_pictures_are_small(name: str) -> None:
    assert (EXAMPLES / "images" / name).stat().st_size < 40_000
