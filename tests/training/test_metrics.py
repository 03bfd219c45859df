import builtins
import csv
from pathlib import Path

import pytest
from PIL import Image

from neo.training.metrics import FIELDS, Metrics, draw_curves, read_metrics


def line(step: int) -> dict[str, float]:
    return dict.fromkeys(FIELDS, 1.0 / step) | {"step": step}


def test_lines_go_to_both_files_and_going_on_forgets_later_ones(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    for step in (1, 2, 3):
        metrics.add(line(step))
    Metrics(tmp_path, from_step=2).add(line(4))
    assert [one["step"] for one in read_metrics(tmp_path)] == [1, 2, 4]
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "4"]
    assert float(rows[2]["loss"]) == 0.25
    Metrics(tmp_path)
    assert read_metrics(tmp_path) == []


def test_curves(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    for step in (1, 2, 3):
        metrics.add(line(step))
    assert Image.open(draw_curves(tmp_path, "stage pt")).size > (800, 500)


def test_curves_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'neo-vlm\[train\]'"):
        draw_curves(tmp_path, "x")
