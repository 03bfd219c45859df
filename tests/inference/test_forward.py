"""A model whose layers compute on several devices, one of which only knows shapes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from engines import ask, engine_of

import neo
from neo.inference import engine as module
from neo.inference.cache import GROWTH, CacheMemory
from neo.inference.forward import Span, forward, layer_devices
from neo.inference.generation import Request
from neo.model import linear
from neo.model.attention import BACKENDS
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


def test_a_model_whose_weights_are_there_only_while_called(tiny_checkpoint, prompts, expected):
    """accelerate's offloading brings each module's own weights for its own call."""
    model = NeoForConditionalGeneration.from_pretrained(tiny_checkpoint).eval()
    cpu_offload(model.model.language_model.layers, execution_device=CPU)
    assert model.model.language_model.layers[0].self_attn.q_norm.weight.device == SHAPES
    prompt = next(prompt for prompt in prompts if len(prompt.image_grid_hw))
    out = model.generate(
        prompt.input_ids[None],
        pixel_values=prompt.pixel_values,
        image_grid_hw=prompt.image_grid_hw,
        max_new_tokens=4,
        do_sample=False,
    )
    assert out[0, -4:].tolist() == expected[prompts.index(prompt)][:4]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("multiplies", [True, False], ids=["bf16", "bf16 made into float32"])
def test_bf16_on_either_kind_of_processor(
    tiny_checkpoint, model, processor, prompts, multiplies: bool, backend: str, monkeypatch
):
    """Log-probabilities of what the engine says, beside those in float32; cached with and without a finer dtype."""
    monkeypatch.setattr(linear, "multiplies_bf16", lambda: multiplies)
    loaded = neo.load_model(str(tiny_checkpoint), dtype="bf16", device="cpu", attn_implementation=backend).model
    engine = engine_of(loaded, processor)
    assert engine.memory.dtype == (torch.bfloat16 if multiplies else torch.float32)
    together = [engine.submit(Request(prompt, 4, logprobs=0)) for prompt in prompts[:4]]
    for prompt, generation in zip(prompts, together, strict=False):
        said = generation.result()
        ids = torch.cat([prompt.input_ids, torch.tensor(said.tokens)])
        with torch.inference_mode():
            logits = model(ids[None], pixel_values=prompt.pixel_values, image_grid_hw=prompt.image_grid_hw).logits
        places = range(len(prompt.input_ids) - 1, len(ids) - 1)
        exact = [logits[0, i].log_softmax(-1)[ids[i + 1]].item() for i in places]
        got = [one.logprob for one in said.logprobs]
        np.testing.assert_allclose(got, exact, atol=0.2, rtol=0)  # measured: 0.09


def test_the_device_that_is_full_first_bounds_the_cache(monkeypatch):
    monkeypatch.setattr(module, "free_memory", {CPU: 100, SHAPES: 30}.get)
    assert module._free_for_all([CPU, CPU, CPU, SHAPES]) == 120
    assert module._free_for_all([CPU, SHAPES, SHAPES, SHAPES]) == 40
    assert module._free_for_all([CPU]) == 100
