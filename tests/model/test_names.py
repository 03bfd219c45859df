from pathlib import Path

import pytest

from neo.model import names


@pytest.fixture
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache with nothing in it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def cached(hub: Path, hub_id: str) -> Path:
    """Put a checkpoint into a Hugging Face cache."""
    repo = hub / f"models--{hub_id.replace('/', '--')}"
    folder = repo / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "neo_chat"}')
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    return folder


@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("NEO-2B-PT", "Paranioar/NEO1_0-2B-PT"),
        ("NEO-2B-MT", "Paranioar/NEO1_0-2B-MT"),
        ("NEO-2B-SFT", "Paranioar/NEO1_0-2B-SFT"),
        ("NEO-9B-PT", "Paranioar/NEO1_0-9B-PT"),
        ("NEO-9B-MT", "Paranioar/NEO1_0-9B-MT"),
        ("neo-9b-sft", "Paranioar/NEO1_0-9B-SFT"),
        ("NEO-ov-2B-SFT", "Paranioar/NEO1_5-2B-SFT"),
        ("NEO-ov-9B-SFT", "Paranioar/NEO1_5-9B-SFT"),
        ("someone/model", "someone/model"),
    ],
)
def test_published_names_and_hub_ids(name: str, hub_id: str, empty_hub: Path):
    with pytest.raises(ValueError, match=f"hf download {hub_id}") as error:
        names.resolve(name)
    assert "--download" in str(error.value)
    assert str(empty_hub) in str(error.value)
    folder = cached(empty_hub, hub_id)
    assert names.resolve(name) == folder


def test_a_folder(tiny_folder: Path):
    assert names.resolve(str(tiny_folder)) == tiny_folder


def test_the_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(names, "CHECKPOINTS", tmp_path)
    with pytest.raises(ValueError, match="neo-demo is missing from this installation"):
        names.resolve("neo-demo")
    (tmp_path / "neo-demo").mkdir()
    (tmp_path / "neo-demo" / "config.json").write_text("{}")
    assert names.resolve("neo-demo") == tmp_path / "neo-demo"


@pytest.mark.parametrize(
    ("wrong", "right"), [("NEO-2B-STF", "NEO-2B-SFT"), ("neo-dmo", "neo-demo"), ("neo-9b", "NEO-9B-")]
)
def test_the_nearest_name_is_offered(wrong: str, right: str):
    with pytest.raises(ValueError, match=f"unknown model '{wrong}', and no folder .* did you mean {right}"):
        names.resolve(wrong)


def test_folders_that_hold_no_neo(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no config\.json"):
        names.resolve(str(tmp_path))
    with pytest.raises(ValueError, match="there is no such folder"):
        names.resolve(str(tmp_path / "missing"))
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "neo-demo"}')
    with pytest.raises(ValueError, match="this is an adapter for neo-demo and no model by itself"):
        names.resolve(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="this is a file"):
        names.resolve(str(tmp_path / "config.json"))
    with pytest.raises(ValueError, match="model_type is None"):
        names.read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(ValueError, match="neo init"):
        names.read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not a whole JSON file"):
        names.read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "neo_chat", "llm_config": {"hidden_size": "wide"}}')
    with pytest.raises(ValueError, match=r"config\.json: .*'hidden_size' expected int"):
        names.read_config(tmp_path)


@pytest.mark.parametrize("name", ["", "a" * 5000])
def test_what_cannot_be_a_name(name: str):
    with pytest.raises(ValueError, match="is no name of a model"):
        names.resolve(name)


def test_a_download_that_fails_says_why(empty_hub: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"NEO-2B-SFT: cannot download Paranioar/NEO1_0-2B-SFT .*\("):
        names.resolve("NEO-2B-SFT", download=True)


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="runs/mine is not on this machine, as a folder or from the hub: fetch it"):
        names.resolve("runs/mine")
    (tmp_path / "runs").mkdir()
    with pytest.raises(ValueError, match=r"^runs/mine: there is no such folder in runs$"):
        names.resolve("runs/mine")


def test_checkpoints_of_a_run_are_told_from_a_model(tmp_path: Path) -> None:
    newest = tmp_path / "checkpoints" / "step-000020"
    for step in (newest, newest.with_name("step-000005")):
        step.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "checkpoints"):
        with pytest.raises(ValueError, match=f"no finished model; make .* neo export --model {newest} --output FOLDER"):
            names.resolve(folder)
