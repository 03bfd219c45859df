import pytest

from neo.model.config import NeoConfig
from neo.model.neo import NeoForConditionalGeneration
from neo.training.stages import choose_trained, parts, table

HW = ("q_proj_hw", "k_proj_hw", "q_norm_h", "q_norm_w", "k_norm_h", "k_norm_w")


@pytest.fixture
def model(small_config: NeoConfig) -> NeoForConditionalGeneration:
    return NeoForConditionalGeneration(small_config)


def trained(model: NeoForConditionalGeneration) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_pt_trains_patches_pre_buffer_and_rows_and_columns(model: NeoForConditionalGeneration) -> None:
    choose_trained(model, "pt")
    expected = {
        name
        for name, _ in model.named_parameters()
        if name.startswith(("model.vision_model.", "model.language_model.layers.0."))
    }
    expected |= {f"model.language_model.layers.1.self_attn.{part}.weight" for part in HW}
    assert trained(model) == expected


@pytest.mark.parametrize("stage", ["mt", "sft"])
def test_later_stages_train_everything(model: NeoForConditionalGeneration, stage: str) -> None:
    choose_trained(model, "pt")
    choose_trained(model, stage)
    assert trained(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("tied", [False, True])
def test_llm_trains_what_a_qwen3_has(small_config: NeoConfig, tied: bool) -> None:
    small_config.text_config.extra_num_layers = 0
    small_config.tie_word_embeddings = small_config.text_config.tie_word_embeddings = tied
    model = NeoForConditionalGeneration(small_config)
    for layer in model.model.language_model.layers:
        layer.self_attn.k_proj_hw.weight.data.zero_()
    choose_trained(model, "llm")
    assert trained(model) == {
        name
        for name, _ in model.named_parameters()
        if not name.startswith("model.vision_model.") and not any(f".{part}." in name for part in HW)
    }
    assert ("lm_head.weight" in trained(model)) == (not tied)


def test_unsuitable_models(model: NeoForConditionalGeneration) -> None:
    with pytest.raises(ValueError, match="without pre-Buffer, but this one has 1"):
        choose_trained(model, "llm")
    with pytest.raises(ValueError, match="unknown stage 'rl'"):
        choose_trained(model, "rl")
    model.config.text_config.extra_num_layers = 0
    with pytest.raises(ValueError, match="keys for rows and columns already"):
        choose_trained(model, "llm")
    with pytest.raises(ValueError, match="this model has none"):
        choose_trained(model, "pt")
    model.config.text_config.extra_num_layers = None
    with pytest.raises(ValueError, match="set extra_num_layers"):
        choose_trained(model, "mt")


def test_table_counts_everything(model: NeoForConditionalGeneration) -> None:
    choose_trained(model, "pt")
    lines = table(parts(model)).splitlines()
    total = sum(parameter.numel() for parameter in model.parameters())
    chosen = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert f"{total:,}" in lines[-1]
    assert f"{chosen:,} ({chosen / total:.1%})" in lines[-1]
    assert any(line.startswith("token embedding") and line.endswith("no") for line in lines)
