"""docs/results.py makes its page, here of one question of each task and a little training."""

import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

from neo.synthetic.tasks import TASKS

ROOT = Path(__file__).parents[1]


def test_the_page_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = runpy.run_path(str(ROOT / "docs" / "results.py"))
    script["main"](["--number", "1", "--pictures", "8", "--epochs", "1", "--output", str(tmp_path / "docs")])
    page = (tmp_path / "docs" / "results.md").read_text()
    rows = re.findall(r"^\| (.+?) \| .* \| [\d.]+% \([\d.]+ to [\d.]+%\) \| [\d.]+% \(", page, re.MULTILINE)
    assert rows[: len(TASKS)] == list(TASKS)
    assert "{" not in re.sub(r"^\|.*$", "", page, flags=re.MULTILINE)  # all places of the page are filled
    assert re.search(r"its accuracy is [+-][\d.]+ points \([+-]", page)
    for figure in re.findall(r"\]\((figures/\w+\.png)\)", page):
        with Image.open(tmp_path / "docs" / figure) as drawn:
            assert drawn.width > 1000
    assert (tmp_path / "runs" / "results" / "synthetic_after" / "report.html").is_file()
