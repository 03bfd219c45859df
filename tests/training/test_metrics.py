import csv
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from neo.training.metrics import FIELDS, Metrics, MetricsConfig, check_packages, read_metrics, read_validation


def line(step: int, **more: float) -> dict[str, Any]:
    return dict.fromkeys(FIELDS, 1.0 / step) | {"step": step, "mfu": None} | more


def test_lines_go_to_both_files_and_going_on_forgets_later_ones(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, sources=["mine"])
    for step in (1, 2, 3):
        metrics.add(line(step, **{"loss/mine": 0.5, "loss/mine/count": 0.25}))
    metrics.add_validation(2, 0.75)
    metrics.add_validation(3, 0.5)
    Metrics(tmp_path, from_step=2, sources=["mine"]).add(line(4))
    assert [one["step"] for one in read_metrics(tmp_path)] == [1, 2, 4]
    assert read_metrics(tmp_path)[0]["loss/mine/count"] == 0.25
    assert read_validation(tmp_path) == [{"step": 2, "loss": 0.75}]
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "4"]
    assert float(rows[2]["loss"]) == 0.25
    assert [row["loss/mine"] for row in rows] == ["0.5", "0.5", ""]
    assert rows[0]["mfu"] == ""
    assert rows[0].keys() == {*FIELDS, "loss/mine"}
    Metrics(tmp_path)
    assert read_metrics(tmp_path) == read_validation(tmp_path) == []


def test_half_a_line_of_a_killed_process_is_left_out(tmp_path: Path) -> None:
    Metrics(tmp_path).add(line(1))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    Metrics(tmp_path, from_step=2).add(line(3))
    assert [one["step"] for one in read_metrics(tmp_path)] == [1, 3]


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for from_step, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        metrics = Metrics(tmp_path, from_step, MetricsConfig(tensorboard=True))
        for step in steps:
            metrics.add(line(step, **{"loss/mine": step + from_step}))
        metrics.add_validation(step, 0.5)
        metrics.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss/mine")] == [(1, 1), (2, 2), (3, 5), (4, 6)]
    assert [e.step for e in events.Scalars("validation_loss")][-1] == 4
    assert "mfu" not in events.Tags()["scalars"]


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the package: what it is told, and that a run that goes on is the same run."""
    told: list[Any] = []
    run = SimpleNamespace(
        log=lambda values: told.append(values), define_metric=lambda *_, **__: None, finish=lambda: told.append("end")
    )
    wandb = SimpleNamespace(
        init=lambda **options: told.append(options) or run,
        Error=type("Error", (Exception,), {}),
    )
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    config = MetricsConfig(wandb="reading")
    metrics = Metrics(tmp_path, 0, config, recipe={"steps": 3})
    metrics.add(line(1))
    metrics.add_validation(1, 0.5)
    metrics.close()
    Metrics(tmp_path, 1, config)
    Metrics(tmp_path, 0, config)
    started, first, validation, end, gone_on, anew = told
    assert (started["project"], started["config"]) == ("reading", {"steps": 3})
    assert first["loss"] == 1.0
    assert "mfu" not in first
    assert validation == {"step": 1, "validation_loss": 0.5}
    assert end == "end"
    assert gone_on["id"] == started["id"]
    assert anew["id"] != started["id"]

    def refuse(**options: object) -> None:
        raise wandb.Error("No API key configured")

    wandb.init = refuse
    with pytest.raises(ValueError, match=r"metrics.wandb=reading: No API key configured .*WANDB_MODE=offline"):
        Metrics(tmp_path, 0, config)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (MetricsConfig(tensorboard=True), r"metrics.tensorboard needs tensorboard: .*'neo-vlm\[tensorboard\]'"),
        (MetricsConfig(wandb="p"), r"metrics.wandb needs wandb: .*'neo-vlm\[wandb\]'"),
    ],
)
def test_a_missing_package_is_one_sentence(config: MetricsConfig, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neo.training.metrics.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=words):
        check_packages(config)
    check_packages(MetricsConfig())
    monkeypatch.setattr("neo.training.metrics.find_spec", importlib.util.find_spec)
    check_packages(MetricsConfig(tensorboard=True))
