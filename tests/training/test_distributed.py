"""Several processes over gloo compute what one does."""

import json
import logging
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image

from neo.data.config import SourceConfig
from neo.data.sources import open_source
from neo.processing.processor import NeoProcessor
from neo.training import TrainConfig, train
from neo.training.distributed import joined
from neo.training.metrics import read_metrics
from neo.training.trainer import build

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


@pytest.mark.parametrize("budget", [1.0, 0.03])
def test_pictures_that_any_rank_cannot_read_are_named_and_counted(pt: Path, tmp_path: Path, budget: float) -> None:
    """Records of a row each, their pictures cut off behind the head: every rank misses one in each of two batches."""
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]
    records = [{"image": f"{k}.png", "conversations": turns} for k in range(8)]
    (tmp_path / "records.json").write_text(json.dumps(records))
    for record in records:
        Image.new("RGB", (64, 64)).save(tmp_path / record["image"])
        whole = (tmp_path / record["image"]).read_bytes()
        (tmp_path / record["image"]).write_bytes(whole[: len(whole) // 2])
    source = open_source(SourceConfig(path=str(tmp_path / "records.json")))
    length = NeoProcessor.from_pretrained(pt).measure(source[0].messages).tokens
    words = [f"--data.sources={{cut: {{path: {tmp_path}/records.json}}}}", f"--data.max_seq_length={length}"]
    words += [f"--data.max_bad_fraction={budget}", f"--model.path={pt}"]
    assert on_ranks(2, read_two_batches, tiny_recipe("mt", tmp_path / "run", *words), tmp_path) == [0, 0]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2))
    assert len({line.split()[2] for line in first["log"] if line.startswith("left out cut[")}) == 4
    assert second["log"] == []
    assert first["unreadable"] == second["unreadable"] == 4
    assert first["error"] == second["error"]
    assert first["error"].startswith("4 of the first" if budget < 1 else "none")


def read_two_batches(config: TrainConfig, folder: Path) -> None:
    """Write down what a rank's loader counts and logs, and how it ends."""
    log: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: log.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("neo.data").addHandler(handler)
    error = "none"
    with joined(config.distributed, config.device) as ranks:
        loader = build(config, ranks).loader
        try:
            list(islice(loader, 2))
        except ValueError as stopped:
            error = str(stopped)
    found = {**loader.state_dict(), "log": log, "error": error}
    (folder / f"rank-{ranks.rank}.json").write_text(json.dumps(found))
