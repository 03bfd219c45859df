import builtins
import math
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from neo.training.curves import draw_curves, smoothed
from neo.training.metrics import FIELDS, Metrics


def write_run(folder: Path, steps: int, *kinds: str, **fixed: Any) -> None:
    """Metrics such as a run has, over so many lines."""
    draw = random.Random(0)
    metrics = Metrics(folder)
    for step in range(1, steps + 1):
        line = dict.fromkeys(FIELDS, None) | {
            "step": step * 10,
            "loss": 1 + 3 * math.exp(-step / 40) + draw.gauss(0, 0.1),
            "learning_rate": 1e-3 * min(1, step / 10) * (1 + math.cos(math.pi * step / steps)) / 2,
            "gradient_norm": 1 + draw.random(),
            "tokens_per_second": 9000 + 500 * draw.random(),
            "fill": 0.97,
            "data_wait": 0.02 * draw.random(),
        }
        by_kind = {kind: line["loss"] * (0.5 + number / 4) for number, kind in enumerate(kinds)}
        metrics.add(line | by_kind | fixed)
    metrics.add_validation(10 * steps // 2, 2.0)
    metrics.add_validation(10 * steps, 1.5)


def test_curves(tmp_path: Path) -> None:
    write_run(tmp_path, 100, "loss/captions", "loss/ocr", "loss/ocr/receipt", mfu=0.4)
    assert Image.open(draw_curves(tmp_path, "stage pt")).size > (1200, 700)


@pytest.mark.parametrize("kinds", [(), ("loss/one",), ("loss/one", "loss/one/count")])
def test_short_runs_with_little_known(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    write_run(tmp_path, 1, *kinds, loss=None, gradient_norm=None)
    assert draw_curves(tmp_path, "stage sft").is_file()


def test_a_run_without_lines(tmp_path: Path) -> None:
    assert draw_curves(tmp_path, "stage sft").is_file()


def test_smoothing_keeps_slopes_and_passes_over_gaps() -> None:
    line = [float(step) for step in range(100)]
    assert smoothed(line)[:97] == pytest.approx(line[:97])
    noisy = [step + 10.0 * (-1) ** step for step in range(100)]
    assert max(abs(ours - step) for step, ours in enumerate(smoothed(noisy)[10:90], start=10)) < 2
    assert smoothed([2.0, None, 1.0])[::2] == [2.0, 1.0]
    gap = smoothed([1.0] * 20 + [None] * 20 + [3.0] * 20)
    assert math.isnan(gap[30])
    assert gap[0] == 1.0
    assert gap[-1] == 3.0


def test_curves_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'neo-vlm\[train\]'"):
        draw_curves(tmp_path, "x")
