"""Configurations: what published ones may look like, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from neo.model.config import PRESETS, NeoConfig, NeoTextConfig, NeoVisionConfig, preset


@pytest.fixture
def published(tiny_folder: Path) -> dict[str, Any]:
    return json.loads((tiny_folder / "config.json").read_text())


def test_published_names(published: dict[str, Any]) -> None:
    config = NeoConfig(**published)
    assert config.text_config.pre_buffer_layers == 2
    assert config.text_config.rope_theta == 1e6
    assert config.text_config.model_type == "neo_text"
    assert config.vision_config.llm_hidden_size == 64
    assert config.vision_config.merge_size == 2


@pytest.mark.parametrize(
    "quirk",
    [
        {"auto_map": {"AutoModel": "modeling_neo_chat.NEOChatModel"}},
        {"img_context_token_id": None},
        {"downsample_ratio": [0.5]},
        {"torch_dtype": "bfloat16"},
        {"unknown_field": 3},
    ],
    ids=lambda quirk: next(iter(quirk)),
)
def test_quirks_of_published_files(published: dict[str, Any], quirk: dict[str, Any]) -> None:
    config = NeoConfig(**{**published, **quirk})
    assert config.image_token_id == 151669
    assert config.downsample_ratio == 0.5
    assert not hasattr(config, "auto_map")


def test_the_other_name_of_the_image_token(published: dict[str, Any]) -> None:
    assert NeoConfig(**published, img_context_token_id=509).image_token_id == 509


def test_qwen3_fields_that_contradict_the_depth_are_dropped(published: dict[str, Any]) -> None:
    published["llm_config"] |= {"layer_types": ["full_attention"] * 32, "rope_scaling": None}
    config = NeoConfig(**published)
    assert config.to_dict()["llm_config"]["layer_types"] == ["full_attention"] * 4


def test_rope_parameters_of_newer_qwen3_files() -> None:
    config = NeoTextConfig(rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    assert config.rope_theta == 5000.0


def test_round_trip_through_a_file(published: dict[str, Any], tmp_path: Path) -> None:
    config = NeoConfig(**published, image_token_id=509)
    config.save_pretrained(tmp_path)
    again = NeoConfig.from_pretrained(tmp_path)
    first, second = config.to_dict(), again.to_dict()
    assert {k: v for k, v in first.items() if k != "_name_or_path"} == {
        k: v for k, v in second.items() if k != "_name_or_path"
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"num_attention_heads": 6, "num_key_value_heads": 4},
            "num_attention_heads=6 .* num_key_value_heads=4",
        ),
        ({"head_dim": 30}, "head_dim=30 must be a multiple of 4"),
        ({"num_hidden_layers": 4, "extra_num_layers": 5}, "extra_num_layers=5 .* num_hidden_layers=4"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope scaling .* is not supported"),
        ({"num_key_value_heads": 0}, "num_key_value_heads=0 must be at least 1"),
        ({"hidden_size": -4}, "hidden_size=-4 must be at least 1"),
        ({"hidden_act": "nope"}, "hidden_act='nope' is not an activation"),
        ({"attention_bias": True}, "attention_bias=true is not supported"),
        ({"use_sliding_window": True}, "use_sliding_window=true is not supported"),
    ],
)
def test_decoders_that_neo_does_not_have(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeoTextConfig(**fields)


def test_tied_survives_a_round_trip() -> None:
    for tied in (False, True):
        again = NeoConfig.from_dict(NeoConfig(tie_word_embeddings=tied).to_dict())
        assert (again.tie_word_embeddings, again.text_config.tie_word_embeddings) == (tied, tied)  # type: ignore[union-attr]


def test_vision_parts_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="hidden_size=30 must be a multiple of 4"):
        NeoVisionConfig(hidden_size=30)
    with pytest.raises(ValueError, match=r"downsample_ratio=0\.0 must lie above 0"):
        NeoVisionConfig(downsample_ratio=[0.0])
    with pytest.raises(ValueError, match=r"llm_hidden_size=\[64, 64\] must be one number or a list of one"):
        NeoVisionConfig(llm_hidden_size=[64, 64])
    with pytest.raises(ValueError, match="llm_hidden_size=32 must equal the decoder's hidden_size=64"):
        NeoConfig(text_config={"hidden_size": 64}, vision_config={"llm_hidden_size": 32})


@pytest.mark.parametrize(("name", "layers", "pre_buffer"), [("2b", 40, 12), ("9B", 42, 6)])
def test_presets(name: str, layers: int, pre_buffer: int) -> None:
    text = preset(name).text_config
    assert (text.num_hidden_layers, text.pre_buffer_layers, text.head_dim) == (layers, pre_buffer, 128)


def test_presets_do_not_share_state() -> None:
    preset("demo").text_config.hidden_size = 1
    assert preset("demo").text_config.hidden_size == PRESETS["demo"]["text"]["hidden_size"]
    with pytest.raises(ValueError, match="unknown preset '3b': choose one of demo, 2b, 9b"):
        preset("3b")
