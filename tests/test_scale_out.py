"""docs/scale-out.md: its tables are what the script computes, and its commands are ones that exist."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from neo.cli import parse

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "scale-out.md").read_text(encoding="utf-8")


def commands() -> Iterator[list[str]]:
    """The words of every command of the page."""
    for block in re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", "").splitlines():
            yield shlex.split(line, comments=True)


def test_tables_are_the_computed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import scale_out

    assert scale_out.filled(PAGE) == PAGE, "run python docs/scale_out.py"
    for name in ("scale_out", "tables"):
        del sys.modules[name]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_exist(words: list[str]) -> None:
    program, *rest = words
    if program == "torchrun":
        options = get_args_parser().parse_args(rest)
        assert (options.module, options.training_script) == (True, "neo")
        program, rest = "neo", options.training_script_args
    if program == "neo":
        assert parse(rest).command in ("data", "train")
    files = [word for word in rest if word.endswith((".yaml", ".sbatch"))]
    assert files
    assert all((DOCS.parent / file).is_file() for file in files)
