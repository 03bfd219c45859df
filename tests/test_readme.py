"""What README and docs promise: code that runs, numbers as measured, links that lead somewhere.

Blocks of README.md marked `python` run one after the other in one namespace, those marked `bash` in a
shell, both in a folder that looks like the checkout; the server listens on a free port in place of 8000. Blocks
marked `text` are not run here: `make demo` and `make test` make an environment, which `.ci/run` does; the others
download weights or need a Qwen3.
"""

import importlib.util
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from neo.inference.describe import describe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

END_JOBS = "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n"
"""A server that a block starts does not outlive it, whatever fails."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Targets of links and pictures that are files of the repository."""
    found = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    return [target for target in found if "://" not in target]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the files that the README names, in which commands may write."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for name in ("src", "recipes"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.fixture
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_python_blocks_run(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks("python"), 1):
        exec(compile(block, f"README.md, python block {number}", "exec"), names)
    assert names["answer"].strip(".").lower() == "red"


def test_bash_blocks_run(checkout: Path) -> None:
    command = checkout / "bin" / "neo"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m neo "$@"\n')
    command.chmod(0o755)
    environment = os.environ | {"PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = ""
    for block in blocks("bash"):
        shell = ["bash", "-euo", "pipefail", "-c", END_JOBS + block.replace("8000", str(port))]
        done = subprocess.run(shell, cwd=checkout, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        said = done.stdout
    assert said.splitlines()[-1] == "a receipt"  # what the fine-tuned model has just learned


def test_tables_are_the_measured_ones(tables: ModuleType) -> None:
    assert tables.filled(README) == README, "run python docs/tables.py"


def test_the_size_of_the_small_model_is_told() -> None:
    total = describe("neo-demo")["parameters"]["total"]
    assert f"`neo-demo` has {total / 1e6:.1f} million parameters" in README


def test_a_table_is_replaced_with_its_origin(tables: ModuleType) -> None:
    before = "# A\n\n## Speed\n\nText.\n\n| old |\n|---|\n| 1 |\n\nMeasured on old.\n\nAfter.\n"
    after = tables.with_table(before, "## Speed", ["| new |", "|---|", "", "Measured on new."])
    assert after == "# A\n\n## Speed\n\nText.\n\n| new |\n|---|\n\nMeasured on new.\n\nAfter.\n"
    assert tables.with_table(after, "## Speed", ["| new |", "|---|", "", "Measured on new."]) == after
    with pytest.raises(ValueError, match="no heading"):
        tables.with_table(before, "## Size", [])
    with pytest.raises(ValueError, match="has no table"):
        tables.with_table("## Speed\n\nText.\n\n## Other\n\n| x |\n", "## Speed", [])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    missing = [target for target in links(page) if not (page.parent / target).exists()]
    assert not missing


def test_the_picture_of_the_architecture_can_be_drawn(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "figures" / "architecture.py"))
    script["main"](tmp_path / "drawn.png")
    with (
        Image.open(tmp_path / "drawn.png") as drawn,
        Image.open(script["__file__"][:-2] + "png") as committed,
    ):
        assert drawn.size == committed.size
