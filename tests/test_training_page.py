"""docs/training.md: its commands and its Python run, scaled down, in a folder that looks like the checkout."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_data

from neo.cli import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
STAGES = ("llm", "pt", "mt", "sft", "scenes_sft", "fine_sft", "lookup_sft", "last_sft")
DEMO = tuple(f"neo train recipes/demo_{stage}.yaml" for stage in STAGES)


def commands() -> list[str]:
    """Every command of the page, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [line.partition("#")[0].strip() for line in lines]


def scaled_down(words: list[str]) -> list[str]:
    """The words of a command, and those that make it cheap; of the same field the last word counts."""
    if "train" in words:
        return [*words, *tiny_data.SMALL, *(tiny_data.SMALL_MODEL if "recipes/demo_llm.yaml" in words else [])]
    cheap = {"ask": ["--max-new-tokens", "3"], "benchmarks/accuracy.py": ["--samples", "1"]}
    return [*words, *next((more for word, more in cheap.items() if word in words), [])]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page names, the demo's stages already run."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("recipes", "examples", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in DEMO:
            assert main(scaled_down(command.split())[1:]) == 0
    return folder


def test_the_demo_is_on_the_page() -> None:
    assert [command for command in commands() if command in DEMO] == list(DEMO)


@pytest.mark.parametrize("command", [command for command in commands() if command not in DEMO])
def test_a_command(command: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    program, *words = scaled_down(shlex.split(command))
    if program == "neo":
        assert main(words) == 0
    elif words[:2] == ["-m", "neo"]:
        assert main(words[2:]) == 0
    elif program == "python":
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(words[0], run_name="__main__")
    else:
        assert program == "torchrun"
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_python(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(compile(block, "training.md", "exec"), {})
    assert (checkout / "runs" / "called" / "model.safetensors").is_file()
