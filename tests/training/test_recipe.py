from pathlib import Path

import pytest
import yaml

from neo.training import load_recipe

SMALL = {
    "stage": "sft",
    "output_dir": "out",
    "model": {"path": "some/model"},
    "data": {"sources": {"mine": {"kind": "json", "path": "a.json"}}},
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return path


def test_defaults_and_values(tmp_path: Path) -> None:
    config = load_recipe(write(tmp_path, optimizer={"learning_rate": 0.5}))
    assert config.optimizer.learning_rate == 0.5
    assert config.optimizer.weight_decay == 0.01
    assert config.data.sources["mine"].weight == 1.0


def test_overrides_in_both_forms(tmp_path: Path) -> None:
    words = [
        "--steps",
        "7",
        "--optimizer.warmup_steps=2",
        "--data.sources.mine.weight=3",
        "--model.path",
        "other",
    ]
    config = load_recipe(write(tmp_path), words)
    assert (config.steps, config.optimizer.warmup_steps) == (7, 2)
    assert config.data.sources["mine"].weight == 3
    assert config.model.path == "other"


def test_values_take_the_type_of_their_field(tmp_path: Path) -> None:
    words = ["--optimizer.learning_rate=5e-5", "--optimizer.clip=1", "--output_dir=2026", "--lora.rank=4"]
    config = load_recipe(write(tmp_path), [*words, "--data.sources.mine.path=[a.json, b.json]"])
    assert config.optimizer.learning_rate == 5e-5
    assert isinstance(config.optimizer.clip, float)
    assert config.output_dir == "2026"
    assert config.lora is not None
    assert config.lora.scaled_by == 8
    assert config.data.sources["mine"].path == ["a.json", "b.json"]
    assert load_recipe(write(tmp_path), ["--lora=null"]).lora is None


def test_a_slip_is_blamed_on_the_file_or_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recipe\.yaml: stepz is not a field; did you mean steps\?"):
        load_recipe(write(tmp_path, stepz=3), ["--seed=2"])
    with pytest.raises(ValueError, match="on the command line: keep='few' must be a whole number"):
        load_recipe(write(tmp_path, output_dir=None), ["--output_dir=out", "--keep=few"])
    assert load_recipe(write(tmp_path, output_dir=None), ["--set.output_dir=out"]).output_dir == "out"


def test_nonsense_is_not_taken_for_a_slip(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"zebra is not a field$"):
        load_recipe(write(tmp_path), ["--zebra=3"])


def test_a_written_recipe_reads_back(tmp_path: Path) -> None:
    config = load_recipe(write(tmp_path))
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(config.to_dict()))
    assert load_recipe(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--stepz=3", "stepz is not a field; did you mean steps?"),
        ("--optimizer.learnin_rate=3", "optimizer.learnin_rate is not a field; did you mean optimizer.learning_rate?"),
        ("--data.sources.mine.wieght=3", "mine.wieght is not a field; did you mean data.sources.mine.weight?"),
        ("--learning_rate=1", "learning_rate is not a field; did you mean optimizer.learning_rate?"),
        ("--gradient-checkpointing=1", "did you mean activation_checkpointing?"),
        ("--lr=1", "lr is not a field; did you mean optimizer.learning_rate?"),
        ("--epochs=3", "epochs is not a field; did you mean steps (a recipe counts steps, not epochs)?"),
        ("--batch_size=3", "batch_size is not a field; did you mean data.rows_per_batch?"),
        ("--data.max_length=3", "data.max_length is not a field; did you mean data.max_seq_length?"),
        ("--max_epoch=3", "max_epoch is not a field; did you mean data.sources.NAME.max_epochs?"),
        ("--zebra=3", "on the command line: zebra is not a field"),
        ("--lora.zebra=3", "lora.zebra is not a field; choose one of rank, alpha, dropout, target_modules, quantize"),
        ("--set.steps=many", "on the command line: steps='many' must be a whole number"),
        ("--stage=rl", "rl"),
        ("--steps=many", "on the command line: steps='many' must be a whole number"),
        ("--steps=true", "steps=True must be a whole number"),
        ("--optimizer.learning_rate=fast", "optimizer.learning_rate='fast' must be a number"),
        ("--resume=maybe", "resume='maybe' must be true or false"),
        ("--data.sources.mine.max_epochs=0", "on the command line: data.sources.mine: max_epochs=0 must be at least 1"),
        ("--data.sources.mine.path=[a, [b]]", "data.sources.mine.path[1]=['b'] must be a text"),
        ("--data.sources=[a]", "data.sources must hold fields of the form 'name: value', not ['a']"),
        ("--optimizer=adamw", "optimizer='adamw' cannot be: optimizer has fields, such as optimizer.name"),
        ("--lora.rank=0", "lora: rank=0 must be at least 1"),
        ("--lora.rank=wide", "lora.rank='wide' must be a whole number"),
        ("--steps=0", "steps=0 must be at least 1"),
        ("--stage.more=1", "stage is one value"),
        ("steps=3", "'steps' is not an override"),
        ("--steps", "'--steps' is not an override"),
        ("--model.preset=demo", "exactly one of path, preset and from_llm"),
        ("--model.pre_buffer_layers=2", "pre_buffer_layers=2 go together"),
        ("--model.text={hidden_size: 8}", "model.path='some/model' fixes all sizes"),
        ("--optimizer.warmup_steps=2000", "warmup_steps=2000 is above steps=1000"),
        ("--optimizer.part_learning_rates={output hed: 1}", "'output hed' is no part; did you mean output head?"),
        ("--optimizer.schedule=linear", "linear"),
        ("--optimizer.clip=0", "clip=0"),
        ("--optimizer.beta2=1", "beta2=1"),
        ("--optimizer.min_fraction=1.5", "min_fraction=1.5 must be between 0 and 1"),
        ("--data.sources={}", "data.sources is empty"),
        ("--data.sources.mine.kind=synthetic", "'synthetic' has path='a.json'"),
        ("--data.sources.mine.families={color: 1}", "no families"),
        ("--data.max_seq_length=0", "max_seq_length=0 must be at least 1"),
        ("--precision=fp8", "precision='fp8' must be one of fp32, bf16"),
        ("--steps=[1", "--steps: '[1' is not a value in YAML"),
        (
            "--model={preset: demo, text: {hiden_size: 8}}",
            "model.text.hiden_size is not a field; did you mean hidden_size?",
        ),
        (
            "--model={preset: demo, vision: {min_pixel: 8}}",
            "model.vision.min_pixel is not a field; did you mean min_pixels?",
        ),
        ("--model={from_llm: a, pre_buffer_layers: 1, text: {head_dim: 8}}", "from_llm='a' fixes the decoder's sizes"),
    ],
)
def test_errors_name_the_value(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(ValueError) as error:
        load_recipe(write(tmp_path), [override])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_fields_and_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such recipe"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    with pytest.raises(ValueError, match="fields of the form"):
        load_recipe(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="not a YAML file"):
        load_recipe(tmp_path / "broken.yaml")
    (tmp_path / "short.yaml").write_text("stage: pt")
    with pytest.raises(ValueError, match="model is missing"):
        load_recipe(tmp_path / "short.yaml")
