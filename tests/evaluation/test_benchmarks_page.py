"""docs/benchmarks.md: its commands and code run, on made-up data; table and numbers are those of the data."""

import importlib
import re
import runpy
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from small_tasks import make_tasks

from neo.cli import main
from neo.cli.eval import eval_parser
from neo.evaluation.benchmarks import benchmarks
from neo.evaluation.harness import STYLES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SMALL = ["--device", "cpu", "--limit", "1", "--min-pixels", "4096", "--max-pixels", "65536"]


@pytest.fixture
def small(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Further words of a command, of which the last counts, so that it takes seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(STYLES, "neo", replace(STYLES["neo"], max_new_tokens=2))
    return ["--model", str(tiny_checkpoint), *SMALL]


@pytest.mark.usefixtures("kit")
def test_commands(small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tasks").mkdir()
    tasks = make_tasks(tmp_path / "tasks")
    for line in "".join(block for kind, block in BLOCKS if kind == "bash").splitlines():
        program, *words = shlex.split(line)
        assert program == "neo"
        if "--benchmark" in words:
            words += small
        if "lmms-eval" in words:
            words += ["--tasks", str(tasks)]
        assert main(words) == 0
        assert capsys.readouterr().out


@pytest.mark.usefixtures("kit")
def test_code() -> None:
    for block in (block for kind, block in BLOCKS if kind == "python"):
        exec(compile(block, "benchmarks.md", "exec"), {})
    assert "NEO-2B-SFT" in importlib.import_module("vlmeval.config").supported_VLM


def test_the_table_is_that_of_the_data() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    assert script["filled_benchmarks"](PAGE) == PAGE, "run python docs/tables.py"


def test_options_are_known() -> None:
    known = {option for action in eval_parser()._actions for option in action.option_strings}
    assert set(re.findall(r"--[a-z-]+", "\n".join(line for line in PAGE.splitlines() if line[:3] == "| `"))) <= known


def test_numbers_in_the_text() -> None:
    style = STYLES["neo"]
    assert f"at least {style.min_pixels // 1024} and at most {style.max_pixels // 1024} tokens" in PAGE


def test_judges_are_named() -> None:
    judged = [one.name for one in benchmarks().values() if one.judge("lmms-eval")]
    assert f"The judge of {' and '.join(judged)} is asked" in PAGE
    assert [one.name for one in benchmarks().values() if one.judge("vlmevalkit")] == ["MMVet"]
