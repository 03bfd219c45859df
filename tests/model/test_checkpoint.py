"""Saving and loading: published names, every dtype, shards, and folders that are not whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from neo.model.checkpoint import our_name, published_name
from neo.model.config import NeoConfig
from neo.model.neo import NeoForConditionalGeneration, NeoModel


def saved_names(folder: Path) -> set[str]:
    return {name for file in folder.glob("*.safetensors") for name in load_file(file)}


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.dtype == second[name].dtype
        assert value.equal(second[name]), name


def test_saved_checkpoint_has_the_published_names(
    tiny: NeoForConditionalGeneration, tiny_folder: Path, tmp_path: Path
) -> None:
    tiny.save_pretrained(tmp_path)
    published, ours = load_file(tiny_folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert published.keys() == ours.keys()
    assert all(value.equal(published[name]) for name, value in ours.items())


def test_saved_config_says_what_the_published_one_says(
    tiny: NeoForConditionalGeneration, tiny_folder: Path, tmp_path: Path
) -> None:
    tiny.save_pretrained(tmp_path)
    published = json.loads((tiny_folder / "config.json").read_text())
    ours = json.loads((tmp_path / "config.json").read_text())
    del published["output_attentions"]  # false, which transformers does not write
    del published["transformers_version"]
    for part in ("llm_config", "vision_config"):
        expected = published.pop(part)
        assert {name: ours[part].get(name, "absent") for name in expected} == expected
    assert {name: ours.get(name, "absent") for name in published} == published
    assert ours["image_token_id"] == 509


def test_names_map_both_ways(tiny: NeoForConditionalGeneration, tiny_folder: Path) -> None:
    published = load_file(tiny_folder / "model.safetensors").keys()
    assert {our_name(name) for name in published} == tiny.state_dict().keys()
    assert {published_name(our_name(name)) for name in published} == published
    assert our_name("model.language_model.norm.weight") == "model.language_model.norm.weight"
    assert our_name("language_model.norm.weight") == "model.language_model.norm.weight"  # a headless model's


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_round_trip(small_config: NeoConfig, tmp_path: Path, dtype: torch.dtype, tied: bool) -> None:
    text = small_config.text_config.to_dict() | {"tie_word_embeddings": tied}
    config = NeoConfig(text_config=text, vision_config=small_config.vision_config)
    model = NeoForConditionalGeneration(config).to(dtype)
    model.save_pretrained(tmp_path)
    assert ("language_model.lm_head.weight" in saved_names(tmp_path)) is not tied
    for load in (NeoForConditionalGeneration, AutoModelForImageTextToText):
        again = load.from_pretrained(tmp_path)
        assert_same_weights(model, again)
        assert (again.lm_head.weight is again.get_input_embeddings().weight) is tied
    assert NeoForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).dtype == torch.float32


def test_tied_only_at_the_top_level(small_config: NeoConfig, tmp_path: Path) -> None:
    text = small_config.text_config.to_dict()
    del text["tie_word_embeddings"]
    config = NeoConfig(text_config=text, vision_config=small_config.vision_config, tie_word_embeddings=True)
    assert config.text_config.tie_word_embeddings
    model = NeoForConditionalGeneration(config)
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("size", ["40KB", "100KB"])
def test_shards(tiny: NeoForConditionalGeneration, tmp_path: Path, size: str) -> None:
    tiny.save_pretrained(tmp_path, max_shard_size=size)
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    assert_same_weights(tiny, NeoForConditionalGeneration.from_pretrained(tmp_path))
    assert_same_weights(tiny.model, NeoModel.from_pretrained(tmp_path))


def test_headless_round_trip(tiny: NeoForConditionalGeneration, tmp_path: Path) -> None:
    tiny.model.save_pretrained(tmp_path)
    assert_same_weights(tiny.model, NeoModel.from_pretrained(tmp_path))
    with pytest.raises(ValueError, match=r"lack tensor language_model\.lm_head\.weight"):
        NeoForConditionalGeneration.from_pretrained(tmp_path)


def test_generation_settings_survive(tiny: NeoForConditionalGeneration, tmp_path: Path) -> None:
    tiny.generation_config.eos_token_id = 7
    tiny.save_pretrained(tmp_path)
    assert NeoForConditionalGeneration.from_pretrained(tmp_path).generation_config.eos_token_id == 7


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_folder / name, tmp_path)
    return tmp_path


def test_token_ids_can_be_given(copy: Path) -> None:
    assert NeoForConditionalGeneration.from_pretrained(copy).config.image_token_id == 151669
    given = NeoForConditionalGeneration.from_pretrained(copy, image_token_id=5, image_start_token_id=6)
    assert (given.config.image_token_id, given.config.image_start_token_id) == (5, 6)


@pytest.mark.parametrize("file", ["tokenizer.json", "added_tokens.json"])
@pytest.mark.parametrize("load", [NeoForConditionalGeneration, NeoModel, AutoModelForImageTextToText])
def test_token_ids_come_from_the_tokenizer(copy: Path, file: str, load: Any) -> None:
    ids = {"<IMG_CONTEXT>": 301, "<img>": 302, "</img>": 303, "<box>": 304}
    tokens: Any = ids
    if file == "tokenizer.json":
        tokens = {"added_tokens": [{"content": token, "id": number} for token, number in ids.items()]}
    (copy / file).write_text(json.dumps(tokens))
    config = load.from_pretrained(copy).config
    assert (config.image_token_id, config.image_start_token_id, config.image_end_token_id) == (301, 302, 303)
    # What the caller says counts.
    assert load.from_pretrained(copy, image_token_id=9).config.image_token_id == 9


# --- folders that are not whole ---


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


NORM = "language_model.model.layers.3.self_attn.q_norm_h.weight"


def lose_tensor(folder: Path) -> str:
    change(folder, lambda tensors: tensors.pop(NORM))
    return f"lack tensor {NORM}, which config.json asks for"


def lose_layer(folder: Path) -> str:
    change(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layers.3." in name])
    return r"lack tensor language_model.model.layers.3.\S+ and 16 more"


def misshape(folder: Path) -> str:
    change(folder, lambda tensors: tensors.update({NORM: torch.ones(15)}))
    return rf"model.safetensors: tensor {NORM} has shape \[15\] but config.json asks for \[16\]"


def truncate(folder: Path) -> str:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return "model.safetensors: not a whole safetensors file"


def empty(folder: Path) -> str:
    (folder / "model.safetensors").write_bytes(b"")
    return "model.safetensors: not a whole safetensors file"


def lose_weights(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    return "no weights here; expected model.safetensors or model.safetensors.index.json"


def pickle_only(folder: Path) -> str:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return "pytorch_model.bin: weights in pickle form are not loaded"


def shard(folder: Path) -> dict[str, str]:
    """Split the weights in two; the index's weight map."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = {"a.safetensors": sorted(tensors)[:30], "b.safetensors": sorted(tensors)[30:]}
    for file, names in halves.items():
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, names in halves.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def lose_shard(folder: Path) -> str:
    weight_map = shard(folder)
    (folder / "b.safetensors").unlink()
    first = next(name for name, file in weight_map.items() if file == "b.safetensors")
    return f"b.safetensors: this shard is missing; model.safetensors.index.json says it holds {first}"


def truncate_shard(folder: Path) -> str:
    shard(folder)
    (folder / "b.safetensors").write_bytes((folder / "b.safetensors").read_bytes()[:-7])
    return "b.safetensors: not a whole safetensors file"


def garble_index(folder: Path) -> str:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {')
    return "model.safetensors.index.json: not a readable index of shards"


def index_without_map(folder: Path) -> str:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    return "model.safetensors.index.json: not a readable index of shards"


def index_of_lists(folder: Path) -> str:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": []}')
    return "model.safetensors.index.json: weight_map must hold the name of a file for each tensor"


def index_that_leads_away(folder: Path) -> str:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text('{"metadata": {}, "weight_map": {"x": "../b.safetensors"}}')
    return "model.safetensors.index.json: x is said to be in '../b.safetensors', which is not a file beside the index"


BROKEN = [
    index_of_lists,
    index_that_leads_away,
    lose_tensor,
    lose_layer,
    misshape,
    truncate,
    empty,
    lose_weights,
    pickle_only,
    lose_shard,
    truncate_shard,
    garble_index,
    index_without_map,
]


@pytest.mark.parametrize("damage", BROKEN)
@pytest.mark.parametrize("load", [NeoForConditionalGeneration, AutoModelForImageTextToText])
def test_a_broken_checkpoint_is_named(copy: Path, damage: Callable[[Path], str], load: Any) -> None:
    message = damage(copy)
    with pytest.raises(ValueError, match=message) as caught:
        load.from_pretrained(copy)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_config(copy: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config\.json here, so this is not a checkpoint folder"):
        NeoForConditionalGeneration.from_pretrained(copy)


def test_mismatched_sizes_may_be_asked_for(copy: Path) -> None:
    misshape(copy)
    model = NeoForConditionalGeneration.from_pretrained(copy, ignore_mismatched_sizes=True)
    assert model.model.language_model.layers[3].self_attn.q_norm_h.weight.equal(torch.ones(16))


def test_whole_shards_load(copy: Path, tiny: NeoForConditionalGeneration) -> None:
    shard(copy)
    assert_same_weights(tiny, AutoModelForImageTextToText.from_pretrained(copy))
