"""Fine-tuning in one call, on records in every form that it takes."""

import json
import logging
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset
from PIL import Image
from tiny_checkpoint import tiny_checkpoint

import neo
from neo.cli import main
from neo.training import LoraConfig, load_recipe, simple, train
from neo.training.metrics import read_metrics

from .test_lora import same
from .test_trainer import assert_same

__all__ = ["tiny_checkpoint"]

RECORDS = 6


def record(number: int, image: Any) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": "What color?"},
        {"role": "assistant", "content": ["red", "green", "blue"][number % 3]},
    ]
    return {"image": image, "conversations": turns}


def picture(number: int) -> Image.Image:
    return Image.new("RGB", (64, 64 + 32 * (number % 2)), ["red", "green", "blue"][number % 3])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """training.json, and its pictures."""
    folder = tmp_path_factory.mktemp("records")
    for number in range(RECORDS):
        picture(number).save(folder / f"{number}.png")
    (folder / "training.json").write_text(json.dumps([record(n, f"{n}.png") for n in range(RECORDS)]))
    return folder


@pytest.fixture
def tune(tiny_checkpoint: Path, tmp_path: Path, folder: Path) -> Any:
    """`train` with small defaults."""

    def tune(dataset: Any = None, name: str = "run", **options: Any) -> Path:
        dataset = folder / "training.json" if dataset is None else dataset
        small = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "device": "cpu"}
        given = {"model": tiny_checkpoint, "dataset": dataset, "output_dir": tmp_path / name}
        return train(**given | small | options)

    return tune


def test_a_file_of_records(tune: Any, tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "neo")
    run = tune()
    lines = read_metrics(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]  # 2 epochs of 4 and 2 records
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert "6 records of up to 34 tokens in rows of 48; 4 records a step, 4 steps, 2 epochs" in caplog.text
    model = neo.load_model(run, device="cpu")
    before = neo.load_model(tiny_checkpoint, device="cpu")
    question = {"image": picture(0), "text": "What color?", "max_new_tokens": 4}
    assert model.generate(**question) != before.generate(**question)
    recipe = load_recipe(run / "recipe.yaml")
    assert recipe.data.sources["dataset"].path
    assert (recipe.stage, recipe.steps, recipe.save_every, recipe.precision) == ("sft", 4, 50, "fp32")


def test_records_in_memory_and_of_datasets_are_the_same(tune: Any, folder: Path) -> None:
    from_file = tune(name="file")
    drawn = [record(number, picture(number)) for number in range(RECORDS)]
    assert_same(from_file, tune(drawn, "drawn"))
    assert_same(from_file, tune([record(n, str(folder / f"{n}.png")) for n in range(RECORDS)], "paths"))
    rows = Dataset.from_list([{"image": one["image"], "messages": one["conversations"]} for one in drawn])
    assert_same(from_file, tune(rows, "datasets"))
    (folder / "halves").mkdir(exist_ok=True)
    for number, half in enumerate((range(3), range(3, 6))):
        lines = [json.dumps(record(n, f"../{n}.png")) for n in half]
        (folder / "halves" / f"{number}.jsonl").write_text("\n".join(lines))
    assert_same(from_file, tune(folder / "halves", "folder"))
    assert_same(from_file, tune(sorted((folder / "halves").glob("*.jsonl")), "list"))


def test_a_stopped_run_ends_as_one_never_stopped(tune: Any, tmp_path: Path) -> None:
    records = [record(number, picture(number)) for number in range(RECORDS)]
    options: dict[str, Any] = {"keep": 9}
    whole = tune(records, "whole", save_steps=1, **options)
    for step in (1, 2):  # in an epoch and between two
        at = f"checkpoints/step-{step:06d}"
        shutil.copytree(whole / at, tmp_path / f"stopped-{step}" / at)
        assert_same(whole, tune(records, f"stopped-{step}", **options))
    with pytest.raises(ValueError, match=r"made with another data\.sources"):
        tune(records[:-1], "whole", **options)
    with pytest.raises(ValueError, match="holds checkpoints of a run"):
        tune(records, "whole", **options, resume=False)


def test_max_steps_stand_in_place_of_epochs(tune: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "neo")
    assert len(read_metrics(tune(max_steps=1))) == 1
    assert "4 records a step, 1 steps, 0.5 epochs" in caplog.text
    assert len(read_metrics(tune(name="more", max_steps=6))) == 6
    assert "6 steps, 3 epochs" in caplog.text


def test_a_finished_run_tells_what_is_to_be_done(tune: Any, caplog: pytest.LogCaptureFixture) -> None:
    run = tune(max_steps=1)
    before = (run / "model.safetensors").read_bytes()
    caplog.set_level(logging.INFO, "neo")
    assert tune(max_steps=1, save_steps=7) == run
    assert "at step 1 of 1 already: nothing to train; for a new run give another output_dir, to go on" in caplog.text
    asked = r"has done its 1 steps, with .*: optimizer.learning_rate \(0.01, now 0.5\); for a new run give another"
    with pytest.raises(ValueError, match=asked):
        tune(max_steps=1, learning_rate=0.5)
    assert load_recipe(run / "recipe.yaml").optimizer.learning_rate == 0.01
    assert (run / "model.safetensors").read_bytes() == before
    assert len(read_metrics(tune(max_steps=2, learning_rate=0.5))) == 2


def test_an_index_of_the_file(tune: Any, folder: Path, tmp_path: Path) -> None:
    """What `neo data index FILE --output FOLDER` makes is what `--data.index FOLDER` wants."""
    lines = tmp_path / "training.jsonl"
    lines.write_text("".join(json.dumps(record(n, str(folder / f"{n}.png"))) + "\n" for n in range(RECORDS)))
    model, index = tmp_path / "model", tmp_path / "index"
    with pytest.raises(ValueError, match="there is no finished index here; make it with neo data index"):
        tune(lines, data={"index": str(index)})
    assert not index.exists()
    shutil.copytree(tune(lines, max_steps=1), model)
    assert main(["data", "index", str(lines), "--output", str(index), "--model", str(model), "--workers", "0"]) == 0
    held = sorted(index.iterdir())
    tune(lines, "indexed", model=model, data={"index": str(index)})
    assert sorted(index.iterdir()) == held


def test_torch_does_not_warn_of_one_process(tune: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*torch.distributed")
        tune(max_steps=1)
        tune(max_steps=2)  # goes on


def test_lora(tune: Any, tiny_checkpoint: Path) -> None:
    run = tune(lora={"rank": 4})
    assert same(run, tune(name="config", lora=LoraConfig(rank=4)))
    assert not (run / "config.json").exists()
    adapted = neo.load_model(tiny_checkpoint, device="cpu", adapter=run)
    assert adapted.generate(text="What color?", max_new_tokens=2) is not None
    assert json.loads((run / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_checkpoint)


def test_other_fields_of_the_recipe(tune: Any) -> None:
    run = tune(data={"max_seq_length": 64}, optimizer={"clip": 0.5}, max_steps=1)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert recipe["data"]["max_seq_length"] == 64
    assert recipe["data"]["rows_per_batch"] == 4
    assert (recipe["optimizer"]["clip"], recipe["optimizer"]["learning_rate"]) == (0.5, 0.01)


def test_picture_sizes(tune: Any, tiny_checkpoint: Path) -> None:
    sizes = {"min_pixels": 1024, "max_pixels": 1024}
    run = tune(model={"path": tiny_checkpoint, "vision": sizes}, max_steps=1)
    assert load_recipe(run / "recipe.yaml").model.vision == sizes
    assert neo.load_model(run, device="cpu").processor.image_processor.max_pixels == 1024


def test_the_longest_of_many_records_is_guessed(tune: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simple, "LOOKED_AT", 3)
    recipe = load_recipe(tune() / "recipe.yaml")
    assert (recipe.steps, recipe.data.max_seq_length) == (4, 64)


def test_some_records_may_be_bad(tune: Any, caplog: pytest.LogCaptureFixture) -> None:
    records = [record(number, picture(number)) for number in range(RECORDS)]
    records[2] = {"conversations": [{"role": "user", "content": "What?"}]}
    with pytest.raises(ValueError, match=r"record 2 \(from 0\): .*; mend it, or allow some by data.max_bad_fraction"):
        tune(records)
    run = tune(records, data={"max_bad_fraction": 0.2}, batch_size=5)
    assert "1 records cannot be learned from; they are left out, and named in their turn" in caplog.text
    assert caplog.text.count("dataset, record 2 (from 0)") == 1
    assert len(read_metrics(run)) == 2  # 5 records an epoch


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model": None}, "the model is missing"),
        ({"dataset": None}, "the dataset is missing"),
        ({"model": "neo-dmo"}, "did you mean neo-demo?"),
        ({"dataset": []}, "dataset is empty"),
        ({"dataset": {"conversations": []}}, "dataset is one record; give a list of records"),
        ({"dataset": {"train": [], "test": []}}, "dataset has the splits train, test; give one of them"),
        ({"dataset": 5}, "dataset is a int"),
        ({"dataset": "none.json"}, "none.json: there is no such file of records"),
        ({"dataset": [{"conversations": 3}]}, "dataset, record 0 (from 0): "),
        (
            {"dataset": [record(0, "none.png")]},
            "none.png: cannot read the picture file (No such file or directory); mend it",
        ),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"epochs": 1.5}, "epochs=1.5 must be a whole number"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"max_steps": 0}, "max_steps=0 must be at least 1"),
        ({"learning_rate": -1}, "learning_rate=-1.0 must be at least 0"),
        ({"save_steps": 0}, "save_every=0 must be at least 1"),
        ({"stepz": 3}, "stepz is not a field; did you mean steps?"),
        ({"batchsize": 3}, "train has no argument batchsize; did you mean batch_size?"),
        ({"lora": {"rnk": 3}}, "lora.rnk is not a field; did you mean lora.rank?"),
        ({"lora": 16}, "lora=16 cannot be: lora has fields, such as lora.rank; set one of them"),
        ({"lr": 1e-3}, "train has no argument lr; did you mean learning_rate?"),
        ({"max_steps": 3, "steps": 4}, "max_steps=3 and steps=4 say the same thing; leave out one of them"),
        ({"data": {"max_seq_length": 16}}, "tokens do not fit a row of 16 (raise data.max_seq_length); mend it, or"),
        ({"output_dir": __file__}, "test_simple.py is a file; name a folder"),
        ({"output_dir": f"{__file__}/run", "dataset": [5]}, "test_simple.py is a file; name a folder"),
    ],
)
def test_mistakes(tiny_checkpoint: Path, tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    known = {"model": tiny_checkpoint, "dataset": [record(0, picture(0))], "device": "cpu"}
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        train(**known | {"output_dir": tmp_path / "run"} | options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_recipe_or_records(tmp_path: Path) -> None:
    for positional in (["recipe.yaml"], ["neo-demo", "training.json"], [None, "training.json"]):
        with pytest.raises(ValueError, match=r"takes a recipe that load_recipe has read, or .* train\(model="):
            train(*positional)
    (tmp_path / "r.yaml").write_text(
        "{stage: sft, model: {path: x}, output_dir: y, data: {sources: {a: {path: a.json}}}}"
    )
    with pytest.raises(ValueError, match="either a recipe or model= and dataset=, not both"):
        train(load_recipe(tmp_path / "r.yaml"), model="neo-demo")
