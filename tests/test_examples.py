"""Every example runs as it stands, and its pictures are what the script draws."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from neo.training.metrics import read_metrics

EXAMPLES = Path(__file__).parents[1] / "examples"
QUESTIONS = json.loads((EXAMPLES / "images" / "questions.json").read_text())
PROGRAMS = ("ask_pictures", "batch", "conversation", "transformers_pipeline", "finetune_new_task", "trl_sft")


def run(program: str, folder: Path, *words: str) -> str:
    """What an example says, called from another folder."""
    command = [sys.executable, str(EXAMPLES / f"{program}.py"), *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_example_is_left_out() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*PROGRAMS, "make_images"}


def test_asking_about_the_pictures(tmp_path: Path) -> None:
    said = run("ask_pictures", tmp_path)
    assert all(one["image"] in said for one in QUESTIONS)
    found = re.search(r"(\d+) of (\d+) as expected", said)
    assert found is not None
    assert int(found[2]) == len(QUESTIONS)
    assert (
        int(found[1]) >= 5
    )  # shapes, a count, a digit, a number; words, charts and receipts it has not learned (see accuracy.md)


def test_a_batch(tmp_path: Path) -> None:
    assert "circle.png: What color is the circle? red" in run("batch", tmp_path)


def test_a_conversation(tmp_path: Path) -> None:
    assert run("conversation", tmp_path).splitlines() == [
        "> What color is the circle?",
        "red",
        "> What shape is red?",
        "circle",
    ]


def test_transformers_alone(tmp_path: Path) -> None:
    assert [line.split()[-1] for line in run("transformers_pipeline", tmp_path).splitlines()] == [
        "red",
        "red",
    ]


def test_a_new_task(tmp_path: Path) -> None:
    """Scaled down to 18 steps; the whole of it is told in its docstring."""
    said = run("finetune_new_task", tmp_path, "48", "3")
    assert re.fullmatch(r"before: +[\d.]+% right\nafter: +[\d.]+% right\n", said)
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
