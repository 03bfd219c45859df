"""docs/evaluation.md: its commands and code run in a folder like the checkout, and its table names every metric."""

import json
import re
import shlex
from pathlib import Path

import pytest

from neo.cli import main
from neo.evaluation.metrics import METRICS
from neo.evaluation.questions import open_questions
from neo.inference import bench

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|bash|json)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LESS = {"bench": ["--batch-size", "1,2", "--image-size", "64", "--new-tokens", "2", "--repeats", "1"]}
"""Further words of a command; of the same option the last counts."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page names, in which its code may write."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


@pytest.mark.parametrize("number", [number for number, (kind, _) in enumerate(BLOCKS) if kind == "bash"])
def test_commands(
    number: int, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    for line in BLOCKS[number][1].splitlines():
        line, _, file = line.partition(" > ")
        program, command, *words = shlex.split(line)
        assert program == "neo"
        assert main([command, *words, *LESS.get(command, [])]) == 0
        said = capsys.readouterr().out
        assert said
        if file:
            Path(file).write_text(said)


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "python"])
def test_code(block: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    exec(compile(block, "evaluation.md", "exec"), {})


def test_records() -> None:
    """Those of the page are a test set."""
    records = [json.loads(line) for kind, block in BLOCKS if kind == "json" for line in block.splitlines()]
    questions = open_questions(records)
    assert [questions[place].expected[-1] for place in range(len(records))] == ["a cat", "12.50 EUR", "dog"]


def test_every_metric_is_told() -> None:
    section = PAGE.partition("## Metrics")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(METRICS)
