"""Every recipe runs, scaled down: each stage from the folder of the one before, on tiny data in the place of its own.

The recipes find models and data by relative folders, so tests change into a folder where these are and change sizes
only, by the same words as on the command line.
"""

from pathlib import Path

import pytest
import tiny_data

from neo.cli import main
from neo.training import load_recipe, train
from neo.training.metrics import read_metrics

RECIPES = Path(__file__).parents[1] / "recipes"
DEMO = ("llm", "pt", "mt", "sft", "scenes_sft", "fine_sft", "lookup_sft", "last_sft", "count_sft")
STAGES = ("pt", "mt", "sft")
PAPER = {
    # stage: steps, warm-up, learning rate, least share of it, length of a row; then where the scripts differ
    "pt": (190_000, 2000, 8e-4, 0.05, 8192),
    "mt": (50_000, 200, 4e-5, 0.1, 8192),
    "sft": (6000, 200, 5e-5, 0.0, 8192),
}
SCRIPTS = {
    "pt": (200_000, 1000, 8e-4, 0.1, 16_384),
    "mt": (50_000, 1500, 5e-5, 0.2, 32_768),
    "sft": (4500, 135, 6e-5, 0.1, 34_816),
}
SIDES = {"pt": 1024, "mt": 2048, "sft": 2048}
"""Of the largest square picture; the scripts allow twice as much."""


def run(recipe: Path, words: list[str]) -> Path:
    """Two steps of a recipe; the folder it leaves."""
    config = load_recipe(recipe, words)
    folder = train(config)
    assert recipe.stem.endswith(config.stage)
    assert [line["step"] for line in read_metrics(folder)] == [1, 2]
    assert (folder / "model.safetensors").is_file()
    return folder


def test_the_demo_from_nothing_to_the_last_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for stage in DEMO:
        run(RECIPES / f"demo_{stage}.yaml", [*tiny_data.SMALL, *(tiny_data.SMALL_MODEL if stage == "llm" else [])])


@pytest.mark.parametrize("folder", [RECIPES, RECIPES / "reference"], ids=lambda folder: folder.name)
@pytest.mark.parametrize(("size", "llm"), [("2b", "Qwen3-1.7B-Base"), ("9b", "Qwen3-8B-Base")])
def test_the_published_stages(
    size: str, llm: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_data.make_language_model(tmp_path / "checkpoints" / llm, tied=size == "2b")
    for stage in STAGES:
        recipe = folder / f"neo_{size}_{stage}.yaml"
        tiny_data.make_sources(tmp_path, load_recipe(recipe).data.sources.values())
        assert main(["data", "index", str(recipe), "--workers", "0"]) == 0
        pre_buffer = ["--model.pre_buffer_layers=1", "--model.vision.hidden_size=16"] if stage == "pt" else []
        run(recipe, [*tiny_data.SMALL, *pre_buffer])


@pytest.mark.parametrize("size", ["2b", "9b"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("reference", [False, True])
def test_the_numbers_are_the_published_ones(size: str, stage: str, reference: bool) -> None:
    config = load_recipe(RECIPES / ("reference" if reference else ".") / f"neo_{size}_{stage}.yaml")
    optimizer, vision = config.optimizer, config.model.vision
    numbers = (config.steps, optimizer.warmup_steps, optimizer.learning_rate, optimizer.min_fraction)
    *expected, length = (SCRIPTS if reference else PAPER)[stage]
    assert numbers == tuple(expected)
    assert config.data.max_seq_length == (18_432 if (size, stage, reference) == ("9b", "sft", True) else length)
    assert (optimizer.beta1, optimizer.beta2) == (0.9, 0.95 if reference else 0.999)
    assert (optimizer.eps, optimizer.weight_decay, optimizer.clip) == (1e-8, 0.01, 1.0)
    assert (config.precision, config.activation_checkpointing) == ("bf16", "full")
    assert vision == {"min_pixels": 256**2, "max_pixels": ((2 if reference else 1) * SIDES[stage]) ** 2}
    weights = {name: source.weight for name, source in config.data.sources.items()}
    if stage == "pt":
        assert config.model.pre_buffer_layers == {"2b": 12, "9b": 6}[size]
    if stage != "sft":
        assert weights["text"] / sum(weights.values()) == pytest.approx(0.3, abs=1e-3)


def test_no_recipe_is_left_out() -> None:
    demo = {f"demo_{stage}.yaml" for stage in DEMO}
    published = {f"neo_{size}_{stage}.yaml" for size in ("2b", "9b") for stage in STAGES}
    found = {str(path.relative_to(RECIPES)) for path in RECIPES.rglob("*.yaml")}
    assert found == demo | published | {f"reference/{name}" for name in published}
