"""Every recipe runs: the stages of the demo in order, each from the folder of the one before, scaled down."""

from pathlib import Path

import pytest

from neo.training import load_recipe, train
from neo.training.metrics import read_metrics

RECIPES = Path(__file__).parents[1] / "recipes"
DEMO = ("llm", "pt", "mt", "sft")
TINY = [
    "--steps=2",
    "--optimizer.warmup_steps=1",
    "--log_every=1",
    "--data.rows_per_batch=2",
    "--data.lookahead_rows=8",
    "--data.max_bad_fraction=0.5",
    "--data.workers=0",
    "--compile=false",
    "--device=cpu",
]
TINY_MODEL = [
    "--model.tokenizer_samples=300",
    "--model.text={vocab_size: 512, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 4, "
    "extra_num_layers: 3, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 16}",
    "--model.vision={hidden_size: 16}",
]


def test_the_demo_from_nothing_to_the_last_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the recipes find one another by relative folders
    for stage in DEMO:
        words = [*TINY, *(TINY_MODEL if stage == "llm" else [])]
        config = load_recipe(RECIPES / f"demo_{stage}.yaml", words)
        folder = train(config)
        assert config.stage == stage
        assert [line["step"] for line in read_metrics(folder)] == [1, 2]
        assert (folder / "model.safetensors").is_file()


def test_no_recipe_is_left_out() -> None:
    assert sorted(path.name for path in RECIPES.glob("*.yaml")) == sorted(f"demo_{stage}.yaml" for stage in DEMO)
