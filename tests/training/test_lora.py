"""Adapters trained in place of a model, on the records of the tiny recipes."""

import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

import neo
from neo.inference.export import export
from neo.model.adapter import PROJECTIONS
from neo.training import TrainConfig, train
from neo.training.checkpoint import oldest_first
from neo.training.metrics import read_metrics
from neo.training.trainer import build

from .conftest import tiny_recipe
from .runs import on_ranks, train_quietly

LORA = ["--lora.rank=4", "--lora.dropout=0.1", "--precision=fp32"]


def recipe(pt: Path, folder: Path, *words: str) -> TrainConfig:
    return tiny_recipe("sft", folder, f"--model.path={pt}", *LORA, *words)


def adapters(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    ours, theirs = adapters(one), adapters(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def tuned(pt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five steps with a checkpoint at step 2."""
    folder = tmp_path_factory.mktemp("runs") / "tuned"
    return train(recipe(pt, folder, "--steps=5", "--save_every=2", "--keep=9"))


def test_the_run_leaves_an_adapter_and_its_processor(tuned: Path, pt: Path) -> None:
    names = {path.name for path in tuned.iterdir() if path.is_file()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "recipe.yaml"} <= names
    assert not {"config.json", "model.safetensors"} & names
    assert len(adapters(tuned)) == 2 * 3 * len(PROJECTIONS)
    assert any(tensor.any() for name, tensor in adapters(tuned).items() if "lora_B" in name)
    with pytest.raises(ValueError, match=f"this is an adapter for {pt} and no model by itself"):
        neo.load_model(tuned)


def test_loaded_and_merged_it_answers_alike(tuned: Path, pt: Path, tmp_path: Path) -> None:
    inputs = {"input_ids": torch.arange(20, 60)[None]}
    loaded = neo.load_model(pt, device="cpu", adapter=tuned).model(**inputs).logits
    merged = neo.load_model(export(pt, tmp_path / "merged", tuned), device="cpu").model(**inputs).logits
    assert not torch.equal(loaded, neo.load_model(pt, device="cpu").model(**inputs).logits)
    assert torch.allclose(merged, loaded, atol=1e-5)


def test_only_adapters_are_trained_and_the_rest_stays(pt: Path, tmp_path: Path) -> None:
    trainer = build(recipe(pt, tmp_path, "--lora.target_modules=[q_proj_hw, o_proj]"))
    assert {name.split(".")[-4] for name in trainer.learner.trained} == {"q_proj_hw", "o_proj"}
    trained = trainer.learner.trained
    before = {name: p.clone() for name, p in trainer.model.named_parameters() if name not in trained}
    trainer.run()
    after = dict(trainer.model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_stopped_run_ends_as_one_never_stopped(tuned: Path, pt: Path, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    shutil.copytree(tuned / "checkpoints" / "step-000002", stopped / "checkpoints" / "step-000002")
    shutil.copy(tuned / "metrics.jsonl", stopped)
    resumed = train(recipe(pt, stopped, "--steps=5", "--save_every=2", "--keep=9"))
    assert same(tuned, resumed)
    assert [line["loss"] for line in read_metrics(tuned)] == [line["loss"] for line in read_metrics(resumed)]


def test_checkpoints_hold_the_adapters_alone(tuned: Path) -> None:
    saved = dcp.FileSystemReader(oldest_first(tuned)[-1]).read_metadata().state_dict_metadata
    assert len(saved) == 4 * len(adapters(tuned))  # weight, two means and the count of steps
    assert all(".lora_" in name for name in saved)


@pytest.mark.parametrize("word", ["--lora.rank=2", "--lora.alpha=1", "--lora=null"])
def test_a_run_does_not_go_on_with_another_adapter(tuned: Path, pt: Path, word: str) -> None:
    with pytest.raises(ValueError, match="made with another lora than this recipe's"):
        build(recipe(pt, tuned, "--steps=5", word))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_give_the_curve_of_one(tuned: Path, pt: Path, tmp_path: Path, strategy: str) -> None:
    words = ["--data.rows_per_batch=4", "--lora.dropout=0"]
    one, two = tmp_path / "one", tmp_path / "two"
    train(recipe(pt, one, *words))
    assert on_ranks(2, train_quietly, recipe(pt, two, *words, f"--distributed.strategy={strategy}")) == [0, 0]
    losses = [[line["loss"] for line in read_metrics(folder)] for folder in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    ours, theirs = adapters(one), adapters(two)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


def test_dropout_is_the_same_when_a_layer_is_computed_again(pt: Path, tmp_path: Path) -> None:
    words = ["--lora.dropout=0.5", "--steps=2"]
    once = train(recipe(pt, tmp_path / "once", *words))
    assert same(once, train(recipe(pt, tmp_path / "again", *words, "--activation_checkpointing=full")))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_qlora(pt: Path, tmp_path: Path, precision: str) -> None:
    """4-bit weights on a CPU: frozen, validated in between, gone on from exactly."""
    words = ["--lora.quantize=nf4", f"--precision={precision}", "--steps=4", "--save_every=2", "--keep=9"]
    words.append("--validation.sources={v: {kind: synthetic, seed: 3}}")
    whole = train(recipe(pt, tmp_path / "whole", *words))
    shutil.copytree(whole / "checkpoints" / "step-000002", tmp_path / "stopped" / "checkpoints" / "step-000002")
    assert same(whole, train(recipe(pt, tmp_path / "stopped", *words)))
    exported = neo.load_model(export(pt, tmp_path / "merged", whole), device="cpu")
    assert exported.model.dtype == torch.float32
    assert exported.generate(text="What?", max_length=3) is not None


def test_4_bit_weights_are_those_of_the_model(pt: Path, tmp_path: Path) -> None:
    import bitsandbytes

    model = build(recipe(pt, tmp_path, "--lora.quantize=nf4")).model
    layer = model.model.language_model.layers[0].mlp.up_proj.base_layer
    assert isinstance(layer, bitsandbytes.nn.Linear4bit)
    held = bitsandbytes.functional.dequantize_4bit(layer.weight, layer.weight.quant_state)
    stored = neo.load_model(pt, device="cpu").model.model.language_model.layers[0].mlp.up_proj.weight
    assert (held - stored).abs().mean() < 0.2 * stored.abs().mean()
    assert model.lm_head.weight.dtype == torch.float32


def test_missing_extras(pt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r"lora.quantize needs bitsandbytes: .*neo-vlm\[qlora\]"):
        build(recipe(pt, tmp_path / "run", "--lora.quantize=nf4"))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"adapters need peft: .*neo-vlm\[lora\]"):
        build(recipe(pt, tmp_path / "run"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--lora.rank=0"], "rank=0 must be at least 1"),
        (["--lora.alpha=0"], "alpha=0 must be at least 1"),
        (["--lora.dropout=1"], "lora.dropout=1.0 must be at least 0 and below 1"),
        (["--lora.target_modules=[q_prj]"], "'q_prj' is not a projection; did you mean q_proj"),
        (["--lora.target_modules=[]"], "lora.target_modules is empty"),
        (["--lora.rnk=2"], "lora.rnk is not a field; did you mean lora.rank"),
        (["--stage=mt"], "lora belongs to stage sft and a model from model.path, not to stage mt"),
        (["--lora.quantize=nf4", "--distributed.strategy=fsdp"], "use distributed.strategy ddp with it, not fsdp"),
    ],
)
def test_mistakes(pt: Path, tmp_path: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        recipe(pt, tmp_path, *words)
