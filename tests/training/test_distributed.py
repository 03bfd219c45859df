"""Several processes over gloo compute what one does."""

from pathlib import Path

import pytest

from neo.training import train
from neo.training.metrics import read_metrics

from .conftest import tiny_recipe
from .runs import on_ranks, train_quietly
from .test_trainer import weights

FEW_PICTURES = ["--data.sources.pictures.weight=1", "--data.sources.told.weight=9", "--data.rows_per_batch=4"]
"""So few that some rows have none."""


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder)]


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("mt", ["--distributed.strategy=ddp", "--micro_batch_rows=1"]),
        ("mt", ["--distributed.strategy=fsdp", "--micro_batch_rows=1", "--activation_checkpointing=full"]),
        ("pt", ["--distributed.strategy=hsdp", "--distributed.shard_size=1"]),
        ("pt", ["--distributed.strategy=fsdp"]),
    ],
)
def test_two_processes_give_the_curve_of_one(llm: Path, pt: Path, tmp_path: Path, stage: str, words: list[str]) -> None:
    start = [f"--model.path={pt}"] if stage == "mt" else [f"--model.from_llm={llm}", "--model.pre_buffer_layers=1"]
    common = [*start, *FEW_PICTURES, "--precision=fp32", "--steps=3"]
    one = train(tiny_recipe(stage, tmp_path / "one", *common))
    two = tmp_path / "two"
    assert on_ranks(2, train_quietly, tiny_recipe(stage, two, *common, *words)) == [0, 0]
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    ours, theirs = weights(two), weights(one)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].sub(theirs[name]).abs().max() < 1e-4 for name in ours)
    for of_one, of_two in zip(read_metrics(one), read_metrics(two), strict=True):
        assert of_one["gradient_norm"] == pytest.approx(of_two["gradient_norm"], rel=1e-4)
