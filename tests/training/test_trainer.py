import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from neo.training import load_recipe, train
from neo.training.checkpoint import oldest_first
from neo.training.curves import draw_curves
from neo.training.metrics import read_metrics
from neo.training.trainer import build

from .conftest import tiny_recipe


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_leaves_model_processor_and_metrics(llm: Path) -> None:
    names = {path.name for path in llm.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json"} <= names
    assert {"metrics.jsonl", "metrics.csv", "recipe.yaml", "checkpoints"} <= names
    assert not any(name.endswith(".tmp") for name in names)
    lines = read_metrics(llm)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(0.5 < line["fill"] <= 1 and line["tokens_per_second"] > 0 for line in lines)
    assert lines[0]["loss"] == pytest.approx(6.2, abs=0.2)  # ln 512: nothing learned yet


def test_a_run_leaves_its_curves(pt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neo.training.trainer.draw_curves", draw_curves)
    assert (train(tiny_recipe("mt", tmp_path, f"--model.path={pt}", "--steps=1")) / "curves.png").is_file()


def test_frozen_tensors_do_not_change_in_pt(llm: Path, pt: Path) -> None:
    """Layer i of the language model is layer i + 1 behind the pre-Buffer; its text parts stay bit by bit."""
    before, after = weights(llm), weights(pt)
    frozen = {
        name
        for name in before
        if not name.startswith("vision_model.")
        and not any(part in name for part in ("_proj_hw.", "_norm_h.", "_norm_w."))
    }
    assert len(frozen) == 2 + 2 * 11  # embedding and norm, and of two layers everything a Qwen3 has
    for name in frozen:
        head, layers, rest = name.partition(".layers.")
        number, dot, tail = rest.partition(".")
        moved = f"{head}{layers}{int(number) + 1}{dot}{tail}" if layers else name
        assert torch.equal(before[name], after[moved]), name


def test_trained_tensors_do_change_in_pt(llm: Path, pt: Path, tmp_path: Path) -> None:
    words = [f"--model.from_llm={llm}", "--model.pre_buffer_layers=1"]
    start = dict(build(tiny_recipe("pt", tmp_path, *words)).model.named_parameters())
    trained = dict(build(tiny_recipe("mt", tmp_path, f"--model.path={pt}")).model.named_parameters())
    changed = {name for name in start if not torch.equal(start[name], trained[name])}
    assert "model.vision_model.patch_embedding.weight" in changed
    assert "model.language_model.layers.0.mlp.up_proj.weight" in changed
    assert "model.language_model.layers.1.self_attn.k_proj_hw.weight" in changed


def test_same_seed_same_weights(llm: Path, tmp_path: Path) -> None:
    assert_same(llm, train(tiny_recipe("llm", tmp_path / "again", "--data.workers=1")))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_run_ends_as_one_never_stopped(pt: Path, tmp_path: Path, precision: str) -> None:
    words = [f"--model.path={pt}", "--steps=5", "--save_every=2", "--keep=9", f"--precision={precision}"]
    whole = train(tiny_recipe("mt", tmp_path / "whole", *words))
    assert [path.name for path in oldest_first(whole)] == ["step-000002", "step-000004", "step-000005"]
    stopped = tmp_path / "stopped"
    shutil.copytree(whole / "checkpoints" / "step-000002", stopped / "checkpoints" / "step-000002")
    shutil.copy(whole / "metrics.jsonl", stopped)
    resumed = train(tiny_recipe("mt", stopped, *words, "--data.workers=1"))
    assert_same(whole, resumed)
    losses = [[line["loss"] for line in read_metrics(folder)] for folder in (whole, resumed)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 5


def test_a_finished_run_is_left_as_it_is(pt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = weights(pt)
    monkeypatch.setattr("neo.training.start.start", None)  # what it started from is not needed again
    train(load_recipe(pt / "recipe.yaml"))
    after = weights(pt)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert len(read_metrics(pt)) == 3


def test_old_checkpoints_go(pt: Path, tmp_path: Path) -> None:
    words = [f"--model.path={pt}", "--steps=4", "--save_every=1", "--keep=2"]
    folder = train(tiny_recipe("mt", tmp_path / "run", *words))
    assert [path.name for path in oldest_first(folder)][-2:] == ["step-000003", "step-000004"]
    best = min(range(1, 5), key=lambda step: read_metrics(folder)[step - 1]["loss"])
    assert {path.name for path in oldest_first(folder)} == {"step-000003", "step-000004", f"step-{best:06d}"}


def test_validation_without_an_answer_is_said(pt: Path, tmp_path: Path) -> None:
    (tmp_path / "asked.json").write_text(json.dumps([{"messages": [{"role": "user", "content": "What?"}]}]))
    sources = f"--validation.sources={{asked: {{path: {tmp_path}/asked.json, max_epochs: 1}}}}"
    with pytest.raises(ValueError, match=r"validation\.sources asked: no record of the first 4 batches has an answer"):
        build(tiny_recipe("mt", tmp_path / "run", f"--model.path={pt}", sources)).validate()


def test_a_folder_with_checkpoints_is_not_overwritten(pt: Path) -> None:
    with pytest.raises(ValueError, match="holds checkpoints of a run"):
        build(tiny_recipe("mt", pt, f"--model.path={pt}", "--resume=false"))


def test_a_loss_that_is_not_finite_stops_and_names_the_records(pt: Path, tmp_path: Path) -> None:
    words = [f"--model.path={pt}", "--max_skipped_steps=1"]
    trainer = build(tiny_recipe("mt", tmp_path / "run", *words))
    with torch.no_grad():
        trainer.model.model.language_model.norm.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"loss is not finite at step 2, and 2 steps .* max_skipped_steps=1 allows"):
        trainer.run()
    assert not oldest_first(trainer.output_dir)
    lines = [json.loads(line) for line in (trainer.output_dir / "skipped_steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(name.startswith(("pictures[", "told[")) for line in lines for name in line["records"])


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("--seed=9", "seed"),
        ("--data.max_seq_length=128", "max_seq_length"),
        ("--data.sources.told.weight=2", "sources"),
    ],
)
def test_a_run_does_not_go_on_in_another_stream(pt: Path, tmp_path: Path, word: str, name: str) -> None:
    words = [f"--model.path={pt}", "--steps=2"]
    train(tiny_recipe("mt", tmp_path, *words))
    with pytest.raises(ValueError, match=f"made with another .*{name}"):
        build(tiny_recipe("mt", tmp_path, *words, word))


def test_mistakes_are_told_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"output_dir=.*/file is a file; name a folder"):
        build(tiny_recipe("llm", tmp_path / "file" / "run"))
    with pytest.raises(ValueError, match="device='nowhere' must be auto, cpu"):
        build(tiny_recipe("llm", tmp_path / "run", "--device=nowhere"))
    with pytest.raises(ValueError, match=r"model.text or model.vision: .*hidden_size"):
        build(tiny_recipe("llm", tmp_path / "run", "--model.text={hidden_size: wide}"))
    monkeypatch.setattr("neo.training.trainer.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"training needs matplotlib: install the extra with .*neo-vlm\[train\]"):
        build(tiny_recipe("llm", tmp_path / "run"))


def test_models_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did the stage before it not finish"):
        build(tiny_recipe("mt", tmp_path, "--model.path=/none"))
    with pytest.raises(ValueError, match="no language model here to grow from"):
        build(tiny_recipe("pt", tmp_path, "--model.from_llm=/none"))


def test_it_learns(llm: Path, tmp_path: Path) -> None:
    words = [f"--model.path={llm}", "--model.preset=null", "--model.text={}", "--model.vision={}"]
    words += ["--steps=40", "--data.max_seq_length=128", "--optimizer.learning_rate=0.01"]
    folder = train(tiny_recipe("llm", tmp_path / "run", *words))
    losses = [line["loss"] for line in read_metrics(folder)]
    assert sum(losses[-5:]) / 5 < losses[0] - 1
