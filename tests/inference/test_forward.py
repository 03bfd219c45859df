"""A model whose layers compute on several devices, one of which only knows shapes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from engines import ask, engine_of

import neo
from neo.inference import engine as module
from neo.inference.cache import GROWTH, CacheMemory
from neo.inference.forward import Span, forward, layer_devices
from neo.model.neo import NeoForConditionalGeneration

CPU, SHAPES = torch.device("cpu"), torch.device("meta")


@pytest.fixture
def spread(tiny_checkpoint: Path) -> NeoForConditionalGeneration:
    """The second layer and what comes behind it elsewhere, as accelerate does it."""
    model = NeoForConditionalGeneration.from_pretrained(tiny_checkpoint).eval()
    decoder = model.model.language_model
    for part in (decoder.layers[1], decoder.norm, model.lm_head):
        add_hook_to_module(part.to(SHAPES), AlignDevicesHook(execution_device=SHAPES))
    return model


def test_keys_and_values_lie_where_their_layer_computes(spread):
    devices = layer_devices(spread.model.language_model)
    assert devices == [CPU, SHAPES]
    memory = CacheMemory(spread.config.text_config, torch.float32, devices, 2**30)
    stores = [memory.open(np.arange(5), GROWTH) for _ in range(2)]
    for store in stores:
        store.advance(np.arange(5))
        memory.grow(store, GROWTH + 1)
    position = torch.tensor([[5], [0], [0]])
    logits = forward(spread, [Span(store, [7], np.array([7]), position) for store in stores])
    assert logits.device == SHAPES
    assert logits.shape == (2, spread.config.text_config.vocab_size)
    for store in stores:
        assert store.length == 6
        assert [layer.device for layer in store.keys] == [layer.device for layer in store.values] == devices
        assert store.keys[0][0, :, 5].abs().sum() > 0


def test_a_spread_model_answers_as_a_whole_one(tiny_checkpoint, processor, prompts, expected):
    whole = neo.load_model(str(tiny_checkpoint), device_map={"": "cpu"}).model
    for layer in whole.model.language_model.layers:
        add_hook_to_module(layer, AlignDevicesHook(execution_device="cpu"))
    engine = engine_of(whole, processor)
    assert engine.memory.devices == [CPU, CPU]
    generations = [ask(engine, prompt) for prompt in prompts[:4]]
    assert [list(one.result().tokens) for one in generations] == expected[:4]


def test_the_device_that_is_full_first_bounds_the_cache(monkeypatch):
    monkeypatch.setattr(module, "free_memory", {CPU: 100, SHAPES: 30}.get)
    assert module._free_for_all([CPU, CPU, CPU, SHAPES]) == 120
    assert module._free_for_all([CPU, SHAPES, SHAPES, SHAPES]) == 40
    assert module._free_for_all([CPU]) == 100
