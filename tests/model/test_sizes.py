import json
import struct
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from neo.model import sizes
from neo.model.config import IGNORE, NeoConfig, preset
from neo.model.neo import NeoForConditionalGeneration
from neo.training.stages import choose_trained


def test_parts_are_the_whole_model(small_config: NeoConfig):
    model = NeoForConditionalGeneration(small_config)
    assert sizes.count_parameters(small_config).total == sum(p.numel() for p in model.parameters())


def test_parameters_of_a_published_layout(tiny_folder: Path):
    with (tiny_folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    shapes = {name: torch.Size(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}

    def counted(*beginnings: str) -> int:
        return sum(shape.numel() for name, shape in shapes.items() if name.startswith(beginnings))

    layer = "language_model.model.layers."
    config = NeoConfig.from_pretrained(tiny_folder, extra_num_layers=2)
    config.text_config.extra_num_layers = 2
    parameters = sizes.count_parameters(config)
    assert parameters.patch_embedding == counted("vision_model.")
    assert parameters.pre_buffer == counted(f"{layer}0.", f"{layer}1.")
    assert parameters.language_model == counted(f"{layer}2.", f"{layer}3.", "language_model.model.norm.")
    assert parameters.embedding == counted("language_model.model.embed_tokens.")
    assert parameters.head == counted("language_model.lm_head.")
    assert parameters.total == counted("")


def test_a_depth_that_is_not_told(small_config: NeoConfig):
    told = sizes.count_parameters(small_config)
    small_config.text_config.extra_num_layers = None
    untold = sizes.count_parameters(small_config)
    assert untold.pre_buffer is None
    assert untold.language_model == told.language_model + told.pre_buffer
    assert untold.total == told.total


def test_tied_head_is_counted_once():
    demo = preset("demo")
    parameters = sizes.count_parameters(demo)
    assert parameters.head == 0
    assert parameters.embedding == demo.text_config.vocab_size * demo.text_config.hidden_size


@pytest.mark.parametrize(("name", "kibibytes"), [("2b", 240), ("9b", 252)])
def test_cache_of_the_published_models(name: str, kibibytes: int):
    assert sizes.cache_bytes_per_token(preset(name)) == kibibytes * 1024
    assert sizes.cache_bytes_per_token(preset(name), torch.float32) == 2 * kibibytes * 1024


@pytest.mark.parametrize(("name", "base"), [("2b", 1_720_574_976), ("9b", 8_190_735_360)])
def test_parameters_of_the_published_models(name: str, base: int):
    """The language model is Qwen3-1.7B or 8B, of these sizes, with parts for rows and columns."""
    config = preset(name)
    text, parameters = config.text_config, sizes.count_parameters(config)
    width, heads = text.hidden_size, text.num_attention_heads + text.num_key_value_heads
    rows_and_columns = width * heads * text.head_dim + 2 * text.head_dim
    layers = text.num_hidden_layers - text.extra_num_layers
    found = parameters.language_model + parameters.embedding + parameters.head
    assert found - layers * rows_and_columns == base
    assert parameters.pre_buffer % text.extra_num_layers == 0


def test_flops_are_those_of_a_forward(small_config: NeoConfig):
    model = NeoForConditionalGeneration(small_config).eval()
    model.set_attn_implementation("eager")
    context = 10
    ids = torch.ones(1, context + 1, dtype=torch.long)
    with torch.inference_mode():
        positions = model.get_positions(ids)
        cache = model(ids[:, :-1], position_ids=positions[..., :-1], use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            model(ids[:, -1:], position_ids=positions[..., -1:], past_key_values=cache)
    assert sizes.flops_per_token(small_config, context) == counter.get_total_flops()


@pytest.mark.parametrize("stage", ["pt", "mt"])
def test_flops_are_those_of_a_training_step(small_config: NeoConfig, stage: str):
    """Counted by torch with written-out attention, which computes every pair of a row, also those that are masked."""
    model = NeoForConditionalGeneration(small_config).train()
    choose_trained(model, stage)
    model.set_attn_implementation("eager")
    ids = torch.ones(2, 12, dtype=torch.long)
    labels = ids.clone()
    labels[:, 5:] = IGNORE
    # Gradients reach the lowest layer, as they do where the patch embedding below is trained.
    embeds = torch.randn(2, 12, small_config.text_config.hidden_size, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, inputs_embeds=embeds, labels=labels).loss.backward()
    assert sizes.Arithmetic.of(model).training(24, 2 * 12 * 12, 2 * 4) == counter.get_total_flops()


def test_memory(small_config: NeoConfig):
    parameters = sizes.count_parameters(small_config)
    assert sizes.training_bytes(small_config) == 16 * parameters.total
    assert sizes.training_bytes(small_config, trained=100) == 16 * 100 + 4 * (parameters.total - 100)
