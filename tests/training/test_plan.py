"""What a run is told to take, against what it takes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from neo.training.config import DistributedConfig, LoraConfig, TrainConfig
from neo.training.plan import plan
from neo.training.start import start
from neo.training.trainer import build

from .conftest import tiny_recipe


@pytest.fixture
def recipe(pt: Path, tmp_path: Path) -> TrainConfig:
    return tiny_recipe("sft", tmp_path, f"--model.path={pt}", "--precision=fp32", "--optimizer.name=adamw")


def test_state_is_what_a_step_holds(recipe: TrainConfig) -> None:
    trainer = build(replace(recipe, steps=1))
    gradients = sum(parameter.nbytes for parameter in trainer.model.parameters() if parameter.requires_grad)
    trainer.run()
    optimizers = trainer.learner.optimizers
    moments = [value for one in optimizers for state in one.state.values() for value in state.values()]
    weights = sum(parameter.nbytes for parameter in trainer.model.parameters())
    held = weights + gradients + sum(value.nbytes for value in moments if value.numel() > 1)
    assert plan(recipe).memory.state == held


def test_activations_are_about_what_is_remembered(recipe: TrainConfig) -> None:
    trainer = build(recipe)
    weights = {parameter.untyped_storage()._cdata for parameter in trainer.model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    batch = next(iter(trainer.loader))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.model(**batch.inputs)
    held = sum(storage.nbytes() for place, storage in kept.items() if place not in weights)
    memory = plan(recipe).memory
    assert 0.6 < memory.remembered / held < 1.6  # measured: 1.26


def test_parts_and_steps(recipe: TrainConfig, pt: Path) -> None:
    report = plan(replace(recipe, stage="pt")).report()
    assert "# token embedding" in report
    assert "# 3 steps of 2 rows" in report
    model, _ = start(recipe.model, "sft", [], 0)  # type: ignore[arg-type]
    assert f"{sum(parameter.numel() for parameter in model.parameters()):,}" in report


def test_what_saves_memory_does(recipe: TrainConfig) -> None:
    def memory(gpus: int = 1, **changes: object) -> dict[str, float]:
        return vars(plan(replace(recipe, **changes), gpus).memory)  # type: ignore[arg-type]

    plain = memory()
    assert memory(2, distributed=DistributedConfig("fsdp"))["state"] == plain["state"] / 2
    again = memory(activation_checkpointing="full")
    assert again["remembered"] < plain["remembered"] / 2
    assert 0 < again["inputs"] < plain["remembered"]
    lora, four_bit = memory(lora=LoraConfig(4)), memory(lora=LoraConfig(4, quantize="nf4"))
    assert four_bit["state"] < lora["state"] < plain["state"] / 2
    assert memory(micro_batch_rows=1)["remembered"] == plain["remembered"] / 2


def test_models_without_weights(llm: Path, tmp_path: Path) -> None:
    """Only configurations are read."""
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "config.json").write_text((llm / "config.json").read_text())
    words = [f"--model.from_llm={tmp_path / 'llm'}", "--model.pre_buffer_layers=1"]
    planned = plan(tiny_recipe("pt", tmp_path, *words))
    assert sum(parameter.numel() for parameter in planned.parts["pre-Buffer layers"]) > 0
    assert plan(tiny_recipe("llm", tmp_path)).memory.total > 0


def test_mistakes(recipe: TrainConfig) -> None:
    with pytest.raises(ValueError, match="rows_per_batch=2 rows cannot be shared out equally among 3 GPUs"):
        plan(recipe, 3)
    with pytest.raises(ValueError, match="did the stage before it not finish"):
        plan(replace(recipe, model=replace(recipe.model, path="/none")))
    with pytest.raises(ValueError, match="no language model here to grow from"):
        plan(tiny_recipe("pt", Path("out"), "--model.from_llm=/none", "--model.pre_buffer_layers=1"))
