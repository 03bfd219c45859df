"""Recipes scaled down to seconds: tiny sizes, a handful of steps, two rows of 512 tokens."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from neo.training import TrainConfig, load_recipe, train, trainer

RECIPES = Path(__file__).parents[2] / "recipes"

TINY = [
    "--steps=3",
    "--optimizer.name=adamw",
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
    "--model.text={vocab_size: 512, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 3, "
    "extra_num_layers: 1, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 16}",
    "--model.vision={hidden_size: 16}",
]


def tiny_recipe(stage: str, output_dir: Path, *overrides: str) -> TrainConfig:
    """A demo recipe, scaled down."""
    words = [*TINY, f"--output_dir={output_dir}", *(TINY_MODEL if stage == "llm" else []), *overrides]
    return load_recipe(RECIPES / f"demo_{stage}.yaml", words)


@pytest.fixture(scope="package", autouse=True)
def undrawn() -> Iterator[None]:
    """To draw its curves takes several times as long as a tiny run; one test has them drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "draw_curves", lambda folder, title: None)
        yield


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of stage llm."""
    return train(tiny_recipe("llm", tmp_path_factory.mktemp("runs") / "llm"))


@pytest.fixture(scope="session")
def pt(llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of stage pt, grown from `llm`."""
    folder = tmp_path_factory.mktemp("runs") / "pt"
    return train(tiny_recipe("pt", folder, f"--model.from_llm={llm}", "--model.pre_buffer_layers=1"))
