import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image

import neo
from neo.training import load_recipe, train
from neo.training.metrics import read_metrics

NAMED = ("--model", "neo-demo", "--data", "x")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three records with pictures."""
    for name in ("red", "green", "blue"):
        Image.new("RGB", (64, 64), name).save(tmp_path / f"{name}.png")
    turns = [{"from": "human", "value": "What color?"}, {"from": "gpt", "value": "It is red."}]
    records = [{"image": f"{name}.png", "conversations": turns} for name in ("red", "green", "blue")]
    (tmp_path / "training.json").write_text(json.dumps(records))
    return tmp_path / "training.json"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The command lets the library talk; the other tests want it quiet again."""
    before = logging.getLogger("neo").level
    yield
    logging.getLogger("neo").setLevel(before)


def test_the_command_does_what_the_call_does(
    run: Callable, data: Path, tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["--model", tiny_checkpoint, "--data", data, "--epochs", 2, "--learning-rate", "1e-3", "--batch-size=2"]
    said = run("train", *words, "--output", tmp_path / "cli", "--device", "cpu", "--lora.rank", 2)
    assert said == f"{tmp_path / 'cli'}\n"
    assert caplog.messages[:2] == [f"starting to fine-tune {tiny_checkpoint}", "looking at 3 records"]
    assert f"loading {tiny_checkpoint}" in caplog.messages
    lora = {"rank": 2}
    call = train(
        model=tiny_checkpoint, dataset=data, epochs=2, learning_rate=1e-3, batch_size=2,
        output_dir=tmp_path / "call", device="cpu", lora=lora,
    )  # fmt: skip
    adapters = [(folder / "adapter_model.safetensors").read_bytes() for folder in (tmp_path / "cli", call)]
    assert adapters[0] == adapters[1]
    assert len(read_metrics(tmp_path / "cli")) == 4
    run("ask", "What color?", "--model", tiny_checkpoint, "--adapter", tmp_path / "cli", "--max-new-tokens", 2)


def test_a_dry_run_prints_a_recipe_that_can_be_run(
    run: Callable, data: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    words = ["--model", tiny_checkpoint, "--data", data, "--output", tmp_path / "run", "--device", "cpu"]
    said = run("train", *words, "--epochs=5", "--dry-run")
    assert not (tmp_path / "run").exists()
    assert "# 5 steps of 4 samples" in said
    assert "# token embedding" in said
    assert "# memory of the training process, here on cpu (--gpus N reckons with N GPUs):" in said
    (tmp_path / "recipe.yaml").write_text(said)
    assert load_recipe(tmp_path / "recipe.yaml").steps == 5
    again = run("train", tmp_path / "recipe.yaml", "--steps", 1, "--dry-run", "--gpus", 2)
    assert "# 1 steps of 4 samples" in again
    assert "of 2 with distributed.strategy=ddp" in again
    assert run("train", tmp_path / "recipe.yaml", "--steps", 1) == f"{tmp_path / 'run'}\n"
    assert isinstance(neo.load_model(tmp_path / "run").generate(text="What?", max_new_tokens=1), str)
    assert len(read_metrics(tmp_path / "run")) == 1


def test_several_files_and_a_stage(run: Callable, data: Path, tiny_checkpoint: Path) -> None:
    words = [
        "--model",
        tiny_checkpoint,
        "--data",
        data,
        "--data",
        data,
        "--stage",
        "pt",
        "--batch_size",
        3,
        "--dry-run",
    ]
    recipe = yaml.safe_load(run("train", *words, "--device=cpu"))
    assert recipe["data"]["sources"]["dataset"]["path"] == [str(data), str(data)]
    assert (recipe["stage"], recipe["steps"]) == ("pt", 6)


def test_picture_sizes_are_a_field_as_any_other(run: Callable, data: Path, tiny_checkpoint: Path) -> None:
    words = ["--model", tiny_checkpoint, "--data", data, "--device", "cpu", "--dry-run"]
    rows = {}
    for most in (1024, 4096):
        sizes = ["--model.vision.max_pixels", most, "--model.vision.min_pixels=1024"]
        recipe = yaml.safe_load(run("train", *words, *sizes))
        assert recipe["model"]["path"] == str(tiny_checkpoint)
        assert recipe["model"]["vision"] == {"max_pixels": most, "min_pixels": 1024}
        rows[most] = recipe["data"]["max_seq_length"]
    assert rows[1024] < rows[4096]


def test_only_the_first_process_prints_the_folder(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neo.training.trainer.train", lambda config, given: config.output_dir)
    values = {
        "stage": "sft",
        "model": {"path": "x"},
        "output_dir": "out",
        "data": {"sources": {"a": {"path": "a.json"}}},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    assert run("train", tmp_path / "r.yaml", "--output_dir=there") == "there\n"
    monkeypatch.setenv("RANK", "1")
    assert run("train", tmp_path / "r.yaml") == ""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "neo train needs a recipe, or --model and --data; --model is missing"),
        (["--model", "neo-demo"], "neo train needs a recipe, or --model and --data; --data is missing"),
        (["missing.yaml"], "missing.yaml: there is no such recipe"),
        (["missing.yaml", "--data", "x"], "--data does not go with the recipe missing.yaml"),
        (["--model", "neo-dmo", "--data", "x.json"], "did you mean neo-demo?"),
        (["--model", "neo-demo", "--data", "x.json"], "x.json: there is no such file of records"),
        ([*NAMED, "--epoch", "3"], "--epoch is not an option of neo train; did you mean --epochs?"),
        (["--modle", "neo-demo", "--data", "x"], "--model is missing; or is --modle it?"),
        (
            [*NAMED, "--learning_rat", "3"],
            "--learning_rat is not an option of neo train; did you mean --learning-rate",
        ),
        ([*NAMED, "--lora.rnk", "3"], "lora.rnk is not a field; did you mean lora.rank?"),
        ([*NAMED, "--lr", "3"], "--lr is not an option of neo train; did you mean --learning-rate?"),
        ([*NAMED, "--num-train-epochs", "3"], "did you mean --epochs?"),
        ([*NAMED, "--warmup_ratio", "0.1"], "did you mean --optimizer.warmup_fraction?"),
        ([*NAMED, "--lora", "16"], "lora=16 cannot be: lora has fields, such as lora.rank; set one of them"),
        (
            ["good.jsonl"],
            "good.jsonl is no recipe (a YAML file); for records write neo train --model MODEL --data good.",
        ),
        ([*NAMED, "--zebra", "3"], "--zebra is not an option of neo train\n"),
        ([*NAMED, "--output", "a", "--output_dir", "b"], "--output_dir says again what"),
        ([*NAMED, "--model.path", "b"], "--model.path says again what"),
        ([*NAMED, "--gpus", "2"], "--gpus 2 belongs to --dry-run"),
        (["missing.yaml", "--dry-run", "--gpus", "0"], "must be at least 1"),
        (["missing.yaml", "--download"], "--download goes with --model"),
        (["--dry-run=no"], "--dry-run takes no value"),
        (["--epochs", "many"], "--epochs='many' must be a whole number"),
        (["--epochs"], "'--epochs' is no option with its value"),
        (["--model", "neo-demo", "x.json"], "write --name value or --name=value; for records write --data x.json"),
        (["--model", "neo-demo", "x"], "'x' is no option with its value; write --name value or --name=value\n"),
        ([*NAMED, "--seed", "[1"], "--seed: '[1' is not a value in YAML"),
    ],
)
def test_mistakes(refuse: Callable, words: list[str], sentence: str) -> None:
    assert sentence in refuse("train", *words)


def test_a_broken_record_is_named_by_file_and_line(refuse: Callable, tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"conversations": [{"from": "gpt", "value": "a"}]}\n\n{"conversations": 3}\n')
    said = refuse("train", "--model", tiny_checkpoint, "--data", tmp_path / "a.jsonl", "--device", "cpu")
    assert f"{tmp_path}/a.jsonl, line 3: 'conversations' must be a list" in said
    (tmp_path / "empty.json").write_text("[]")
    said = refuse("train", "--model", tiny_checkpoint, "--data", tmp_path / "empty.json", "--device", "cpu")
    assert "the file holds no record" in said
