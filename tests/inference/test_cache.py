"""The memory of keys and values: how it grows, and what happens where a device has less than the budget."""

import random
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from engines import ask, assert_nothing_leaked, engine_of
from torch import Tensor

from neo.inference import cache
from neo.inference.cache import GROWTH, CacheMemory, OutOfMemory, Store, cache_dtype
from neo.inference.generation import Request
from neo.model.config import NeoTextConfig
from neo.model.sizes import cache_bytes_per_token

CPU = torch.device("cpu")
CONFIG = NeoTextConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
TOKEN = cache_bytes_per_token(CONFIG, torch.float32)


class Device:
    """In place of torch's memory: so many bytes, counted while tensors are alive."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.held: list[weakref.ref[Tensor]] = []

    def used(self) -> int:
        return sum(tensor.nbytes for tensor in (one() for one in self.held) if tensor is not None)

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        tensor = torch.empty(shape, dtype=dtype, device=device)
        if self.used() + tensor.nbytes > self.size:
            raise torch.OutOfMemoryError("out of memory")
        self.held.append(weakref.ref(tensor))
        return tensor


@pytest.fixture
def device_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Device]:
    def make(size: int) -> Device:
        device = Device(size)
        monkeypatch.setattr(cache, "_allocate", device.allocate)
        return device

    return make


def filled(store: Store, contents: np.ndarray) -> None:
    """Numbers in every layer that tell place and layer."""
    for layer in range(CONFIG.num_hidden_layers):
        numbers = torch.arange(len(contents)).view(1, 1, -1, 1) + 1000.0 * layer
        store.write(layer, 0, numbers.expand(1, 2, -1, 32), -numbers.expand(1, 2, -1, 16))
    store.advance(contents)


def assert_filled(store: Store, contents: np.ndarray) -> None:
    assert store.contents[: store.length].tolist() == contents.tolist()
    for layer in range(CONFIG.num_hidden_layers):
        numbers = torch.arange(len(contents)) + 1000.0 * layer
        assert torch.equal(store.keys[layer][0, 1, : len(contents), 3], numbers)
        assert torch.equal(store.values[layer][0, 1, : len(contents), 3], -numbers)


def test_growth_holds_one_layer_twice(device_of):
    """Not the whole store: room for one more layer is enough."""
    contents = np.arange(GROWTH)
    before, after = GROWTH * TOKEN, 2 * GROWTH * TOKEN
    device_of(after + before // (3 * 3))  # the values of the last layer, a third of what it holds
    memory = CacheMemory(CONFIG, torch.float32, [CPU] * 3, 10 * after)
    store = memory.open(contents, GROWTH)
    filled(store, contents)
    assert memory.grow(store, GROWTH + 1)
    assert store.capacity == memory.used == 2 * GROWTH
    assert_filled(store, contents)


def test_growth_that_fails_halfway_leaves_all_as_it_was(device_of):
    contents = np.arange(GROWTH)
    device = device_of(2 * GROWTH * TOKEN)
    memory = CacheMemory(CONFIG, torch.float32, [CPU] * 3, 10 * device.size)
    store = memory.open(contents, GROWTH)
    filled(store, contents)
    with pytest.raises(OutOfMemory, match=f"cache of 256 tokens, {256 * TOKEN:,} bytes, beside 128 tokens in use"):
        memory.grow(store, GROWTH + 1)
    assert store.capacity == memory.used == GROWTH
    assert_filled(store, contents)
    device.size *= 2
    assert memory.grow(store, GROWTH + 1)
    assert_filled(store, contents)


def test_what_is_kept_is_forgotten_for_those_under_way(device_of):
    device_of(2 * GROWTH * TOKEN)
    memory = CacheMemory(CONFIG, torch.float32, [CPU] * 3, 100 * GROWTH * TOKEN)
    for word in range(2):
        contents = np.full(GROWTH, word)
        store = memory.open(contents, GROWTH)
        filled(store, contents)
        memory.close(store)
    del store
    assert len(memory.kept) == 2
    assert memory.open(np.full(3, 7), 2 * GROWTH) is not None
    assert not memory.kept
    assert memory.used == 2 * GROWTH


def test_nothing_is_forgotten_for_what_finds_no_room_all_the_same():
    memory = CacheMemory(CONFIG, torch.float32, [CPU] * 3, 10 * GROWTH * TOKEN)
    live = memory.open(np.full(5 * GROWTH, 1), 5 * GROWTH)
    kept = memory.open(np.full(GROWTH, 2), 3 * GROWTH)
    filled(kept, np.full(GROWTH, 2))
    memory.close(kept)
    assert memory.open(np.full(3, 7), 6 * GROWTH) is None
    assert not memory.grow(live, 11 * GROWTH)
    assert list(memory.kept.values()) == [kept]
    assert memory.open(np.full(3, 7), 5 * GROWTH) is not None
    assert not memory.kept


def test_what_a_request_begins_with_is_forgotten_last_and_for_itself_too(device_of):
    """A device with room for two stores, or for the new one alone."""
    known = np.arange(2 * GROWTH)
    for size, kept, shared in ((5, [1, 2], 9), (4, [2], 9), (2, [], 0)):
        device = device_of(10 * GROWTH * TOKEN)
        memory = CacheMemory(CONFIG, torch.float32, [CPU] * 3, 100 * GROWTH * TOKEN)
        for contents in (known, np.full(GROWTH, 5000)):
            store = memory.open(contents, len(contents))
            filled(store, contents)
            memory.close(store)
        del store
        device.size = size * GROWTH * TOKEN
        opened = memory.open(np.append(known[:9], [7] * 9), 2 * GROWTH)
        assert opened.length == shared
        assert_filled(opened, known[:shared])
        assert [one.capacity // GROWTH for one in memory.kept.values()] == kept


def test_the_systems_own_refusal_is_known():
    memory = CacheMemory(CONFIG, torch.float32, [CPU] * 3, 2**62)
    with pytest.raises(OutOfMemory, match="there is no memory left for a cache of"):
        memory.open(np.arange(3), 2**44)
    assert memory.used == 0
    assert not memory.live


def test_other_errors_are_not_taken_for_it(monkeypatch):
    def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(cache, "_allocate", fail)
    with pytest.raises(RuntimeError, match="broken"):
        CacheMemory(CONFIG, torch.float32, [CPU] * 3, 2**62).open(np.arange(3), GROWTH)


@pytest.mark.parametrize("seed", range(4))
def test_a_device_with_less_than_the_budget_answers_all_that_it_can(
    model, processor, prompts, expected, device_of, seed: int
):
    draw = random.Random(seed)
    token = cache_bytes_per_token(model.config.text_config, cache_dtype([model.device], model.dtype))
    device_of(int(draw.choice([5.5, 7.5, 9.5]) * GROWTH * token))  # the longest prompt takes 2 to 4 times GROWTH
    engine = engine_of(model, processor, max_batch=8, chunk_tokens=64, reuse=draw.random() < 0.5)
    numbers = draw.sample(range(len(prompts)), 8)
    generations = [ask(engine, prompts[number]) for number in numbers]
    assert [list(one.result().tokens) for one in generations] == [expected[number] for number in numbers]
    assert_nothing_leaked(engine)


def test_what_a_device_can_never_hold_is_refused_alone(model, processor, prompts, expected, device_of):
    token = cache_bytes_per_token(model.config.text_config, cache_dtype([model.device], model.dtype))
    device_of(int(3.9 * GROWTH * token))
    engine = engine_of(model, processor, chunk_tokens=64)
    long = processor.encode([{"role": "user", "content": "What " * 500}], add_generation_prompt=True)
    large, small = engine.submit(Request(long, 4)), ask(engine, prompts[0])
    assert small.result().tokens == tuple(expected[0])
    with pytest.raises(OutOfMemory, match="there is no memory left for a cache of"):
        large.result()
    assert ask(engine, prompts[0]).result().tokens == tuple(expected[0])
    assert_nothing_leaked(engine)
