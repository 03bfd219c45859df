"""How fast a model answers on this machine, and how fast it could at best: `neo bench`.

Measured is the engine itself, step by step. `first token` is the time until each of the requests that came together has
its first one, all of its picture and prompt computed anew. A `step` gives every request one more token. The floors are
what reading and multiplying alone would take on this machine, whose speed at both is measured first:

- first token: the operations of the layers for all prompts, at the speed of large matrix products;
- step: the bytes of the layers and the head once, and of each request's keys and values, at the speed of reading.
"""

import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from neo.inference.cache import GROWTH
from neo.inference.chat import ChatModel
from neo.inference.engine import Engine
from neo.inference.generation import Request
from neo.inference.quantize import quantization_of
from neo.model.device import peak_memory, reset_peak_memory
from neo.model.linear import fastest_dtype
from neo.model.sizes import cache_bytes_per_token, flops_per_token
from neo.processing.processor import Encoded

QUESTION = "Describe the picture in detail."
BLOCK = {"cpu": 2**28, "cuda": 2**32}
"""Bytes that are read to measure reading: more than caches hold."""
SIDE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied to measure multiplying."""
SECONDS = 0.8
"""For which each of the two is measured."""


@dataclass(frozen=True)
class Machine:
    """What the machine does at best."""

    name: str
    threads: int
    read_bytes_per_s: float
    flops_per_s: float
    """Of matrix products in the model's dtype."""


@dataclass(frozen=True)
class Row:
    """One batch size; seconds are medians."""

    batch_size: int
    prompt_tokens: int
    """Of each request."""
    first_token_s: float
    first_token_floor_s: float
    step_s: float
    step_floor_s: float
    peak_memory_bytes: int
    """Of the GPU, or of the whole process on CPU, weights included."""

    @property
    def tokens_per_s(self) -> float:
        """Of all requests together."""
        return self.batch_size / self.step_s

    def facts(self) -> dict[str, Any]:
        """All of it, for JSON."""
        shares = {
            "first_token_share": self.first_token_floor_s / self.first_token_s,
            "step_share": self.step_floor_s / self.step_s,
        }
        rates = {"tokens_per_s_each": 1 / self.step_s, "tokens_per_s": self.tokens_per_s}
        return asdict(self) | rates | shares


def bench(
    chat: ChatModel,
    batch_sizes: Sequence[int] = (1, 4, 16),
    image_size: int = 512,
    new_tokens: int = 64,
    repeats: int = 3,
) -> dict[str, Any]:
    """Measure a model.

    Args:
        chat: the model.
        batch_sizes: so many requests at the same time.
        image_size: pixels of a side of the picture in each request; 0 for none.
        new_tokens: steps that are measured behind the first token.
        repeats: times that each batch size is measured, after a warm-up.

    Returns:
        model, dtype, quantization, device, sizes, `machine` (see `Machine`) and `rows` (see `Row`), for JSON.

    Raises:
        ValueError: a number is out of range, or so many requests of this length do not fit.
    """
    for name, numbers, least in (
        ("batch_size", list(batch_sizes) or [0], 1),
        ("image_size", [image_size], 0),
        ("new_tokens", [new_tokens], 1),
        ("repeats", [repeats], 1),
    ):
        for number in numbers:
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ValueError(f"{name}={number!r} must be a whole number of at least {least}")
    prompt = _prompt(chat, image_size)
    engines = [_engine(chat, prompt, batch, new_tokens) for batch in batch_sizes]  # refuses before it measures
    machine = measure_machine(chat.model.device, chat.model.dtype)
    rows = [_measure(engine, prompt, engine.max_batch, new_tokens, repeats, machine) for engine in engines]
    return {
        "model": chat.name,
        "dtype": str(chat.model.dtype).removeprefix("torch."),
        "quantization": quantization_of(chat.model),
        "device": str(chat.model.device),
        "weight_bytes": _bytes_of(chat.model),
        "image_size": image_size,
        "new_tokens": new_tokens,
        "machine": asdict(machine),
        "rows": [row.facts() for row in rows],
    }


def report(facts: dict[str, Any]) -> str:
    """The table of what `bench` gives, for people."""
    machine, numbers = facts["machine"], facts["quantization"] or facts["dtype"]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    lines = [
        f"{facts['model']}, {numbers}, {facts['weight_bytes'] / 2**20:,.0f} MiB of weights",
        f"{machine['name']}, {threads}: reads {machine['read_bytes_per_s'] / 1e9:,.1f} GB/s, "
        f"multiplies {machine['flops_per_s'] / 1e9:,.0f} GFLOP/s",
        "first token: until each of the requests has one; step: one more token for each; floor: what multiplying, or",
        "for a step reading, takes by itself; share: the floor's of what was measured; peak: memory, weights included",
        "",
    ]
    table = [
        ["batch", "prompt", "first token", "floor", "share", "step", "floor", "share", "tok/s each", "tok/s", "peak"]
    ]
    for row in facts["rows"]:
        table.append(
            [
                str(row["batch_size"]),
                str(row["prompt_tokens"]),
                *(_time(row["first_token_s"]), _time(row["first_token_floor_s"]), f"{row['first_token_share']:.0%}"),
                *(_time(row["step_s"]), _time(row["step_floor_s"]), f"{row['step_share']:.0%}"),
                *(f"{row['tokens_per_s_each']:,.1f}", f"{row['tokens_per_s']:,.1f}"),
                f"{row['peak_memory_bytes'] / 2**30:,.2f} GiB",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in table]
    return "\n".join(lines)


def measure_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """How fast a device reads memory and multiplies matrices; takes about 2 seconds."""
    kind = device.type if device.type in BLOCK else "cpu"
    block = torch.ones(BLOCK[kind] // 4, device=device)
    reading = _fastest(block.sum, device)
    matrix = torch.ones(SIDE[kind], SIDE[kind], dtype=dtype, device=device)
    matrix = matrix.to(fastest_dtype(device, dtype))
    multiplying = _fastest(lambda: matrix @ matrix, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return Machine(name, torch.get_num_threads(), block.nbytes / reading, 2 * SIDE[kind] ** 3 / multiplying)


def _measure(engine: Engine, prompt: Encoded, batch: int, new_tokens: int, repeats: int, machine: Machine) -> Row:
    reset_peak_memory(engine.model.device)
    _run(engine, prompt, batch, 2)
    runs = [_run(engine, prompt, batch, new_tokens) for _ in range(repeats)]
    config = engine.model.config.text_config
    length = len(prompt.input_ids)
    seen = batch * (length + new_tokens / 2) * cache_bytes_per_token(config, engine.memory.dtype)
    head = 2 * config.vocab_size * config.hidden_size
    operations = batch * (length * (flops_per_token(engine.model.config, length // 2) - head) + head)
    decoder = engine.model.model.language_model
    return Row(
        batch_size=batch,
        prompt_tokens=length,
        first_token_s=statistics.median(first for first, _ in runs),
        first_token_floor_s=operations / machine.flops_per_s,
        step_s=statistics.median(chain.from_iterable(steps for _, steps in runs)),
        step_floor_s=(_bytes_of(decoder.layers, engine.model.lm_head) + seen) / machine.read_bytes_per_s,
        peak_memory_bytes=peak_memory(engine.model.device),
    )


def _run(engine: Engine, prompt: Encoded, batch: int, steps: int) -> tuple[float, list[float]]:
    """Seconds until all requests have their first token, and of each step in which all of them get one more."""
    start = time.perf_counter()
    generations = [engine.submit(Request(prompt, _room(engine, prompt, steps))) for _ in range(batch)]
    while any(generation.first_token_at is None for generation in generations):
        engine.step()
    first = time.perf_counter() - start
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - start)
    said = [len(generation.tokens) for generation in generations]
    assert min(said) == steps + 1, f"requests did not go side by side: {said} tokens behind {steps} steps"
    for generation in generations:
        generation.cancel()
    engine.step()
    return first, times


def _engine(chat: ChatModel, prompt: Encoded, batch: int, new_tokens: int) -> Engine:
    """One that computes every prompt anew and holds all requests at once."""
    engine = Engine(chat.model, chat.processor, max_batch=batch, reuse=False)
    request = Request(prompt, _room(engine, prompt, new_tokens))
    engine.check(request)
    tokens = len(prompt.input_ids) + request.max_new_tokens
    if batch * math.ceil(tokens / GROWTH) * GROWTH > engine.memory.capacity:
        room = engine.memory.capacity
        raise ValueError(f"batch_size={batch} takes {batch} x {tokens} tokens of cache, but there is room for {room}")
    return engine


def _room(engine: Engine, prompt: Encoded, steps: int) -> int:
    """Tokens that a request needs to be still under way then: while the last prompts are read the first ones answer."""
    reading = engine.max_batch * (math.ceil(len(prompt.input_ids) / engine.chunk_tokens) + 1)
    return reading + steps + 2


def _prompt(chat: ChatModel, image_size: int) -> Encoded:
    content: list[dict[str, Any]] = [{"type": "text", "text": QUESTION}]
    if image_size:
        noise = np.random.default_rng(0).integers(0, 255, (image_size, image_size, 3), dtype=np.uint8)
        content.insert(0, {"type": "image", "image": noise})
    return chat.processor.encode([{"role": "user", "content": content}], add_generation_prompt=True)


def _bytes_of(*modules: nn.Module) -> int:
    """Of the weights, each counted once, quantised ones as they lie in memory."""
    weights = chain.from_iterable(chain(module.parameters(), module.buffers()) for module in modules)
    return sum({weight.data_ptr(): weight.nbytes for weight in weights}.values())


def _fastest(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds that some work takes at best."""
    wait = torch.get_device_module(device).synchronize
    times: list[float] = []
    while len(times) < 4 or sum(times) < SECONDS:
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _time(seconds: float) -> str:
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
