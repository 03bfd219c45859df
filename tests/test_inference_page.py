"""docs/inference.md: its code runs, block after block, in a folder like the checkout; `neo bench` does less."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from neo.cli import main
from neo.inference import bench

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "inference.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LESS = {"bench": ["--batch-size", "1,2", "--image-size", "64", "--new-tokens", "2", "--repeats", "1"]}
"""Further words of a command; of the same option the last counts."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pictures that the page names, in which its code may write."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block(number: int, checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    language, block = BLOCKS[number]
    if language == "python":
        exec(compile(block, f"inference.md, block {number}", "exec"), {})
    else:
        for line in block.splitlines():
            program, command, *words = shlex.split(line)
            assert program == "neo"
            assert main([command, *words, *LESS.get(command, [])]) == 0
    assert capsys.readouterr().out


def test_everything_is_found() -> None:
    assert len(BLOCKS) == PAGE.count("```") / 2
