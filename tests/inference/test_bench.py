"""The benchmark of the tiny checkpoint: what it says, not how fast that was."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from neo.inference import bench as module
from neo.inference.bench import bench, measure_machine, report
from neo.inference.chat import ChatModel
from neo.model.sizes import cache_bytes_per_token


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is measured in no time."""
    monkeypatch.setattr(module, "BLOCK", {"cpu": 2**20})
    monkeypatch.setattr(module, "SIDE", {"cpu": 64})
    monkeypatch.setattr(module, "SECONDS", 0.0)


def test_a_row_for_each_batch_size(chat_model: ChatModel):
    facts = bench(chat_model, [1, 3], image_size=128, new_tokens=5, repeats=2)
    assert (facts["dtype"], facts["device"]) == ("float32", "cpu")
    assert [row["batch_size"] for row in facts["rows"]] == [1, 3]
    for row in facts["rows"]:
        assert row["prompt_tokens"] > 16  # of the picture
        assert row["tokens_per_s"] == pytest.approx(row["batch_size"] * row["tokens_per_s_each"])
        assert row["step_share"] == pytest.approx(row["step_floor_s"] / row["step_s"])
        assert row["first_token_share"] == pytest.approx(row["first_token_floor_s"] / row["first_token_s"])
        assert row["peak_memory_bytes"] > facts["weight_bytes"]
        assert min(value for value in row.values()) > 0
    weights = sum(parameter.nbytes for parameter in chat_model.model.parameters())
    assert facts["weight_bytes"] == weights
    json.dumps(facts)


def test_floors(chat_model: ChatModel):
    """By hand: weights and cache over the speed of reading, operations over that of multiplying."""
    facts = bench(chat_model, [1, 2], image_size=0, new_tokens=4, repeats=1)
    one, two = facts["rows"]
    config, speed = chat_model.model.config.text_config, facts["machine"]["read_bytes_per_s"]
    cache = (one["prompt_tokens"] + 2) * cache_bytes_per_token(config, torch.float32)
    decoder = chat_model.model.model.language_model
    weights = sum(p.nbytes for p in decoder.layers.parameters()) + chat_model.model.lm_head.weight.nbytes
    assert one["step_floor_s"] * speed == pytest.approx(weights + cache)
    assert two["step_floor_s"] * speed == pytest.approx(weights + 2 * cache)
    matrices = [m.weight.numel() for m in decoder.layers.modules() if isinstance(m, torch.nn.Linear)]
    length, head = one["prompt_tokens"], chat_model.model.lm_head.weight.numel()
    attention = 3 * 16 * 4 * 2 * (length // 2 + 1)  # of one token: head_dim, heads, layers, tokens in view
    operations = 2 * (length * (sum(matrices) + attention) + head)
    assert one["first_token_floor_s"] * facts["machine"]["flops_per_s"] == pytest.approx(operations)
    assert two["first_token_floor_s"] == pytest.approx(2 * one["first_token_floor_s"])


def test_the_engine_of_the_model_is_left_alone(chat_model: ChatModel):
    before = chat_model.generate(text="Hello", max_new_tokens=8)
    bench(chat_model, [2], image_size=0, new_tokens=2, repeats=1)
    assert chat_model.generate(text="Hello", max_new_tokens=8) == before
    assert not chat_model.engine.running


def test_prompts_longer_than_a_chunk(chat_model: ChatModel, monkeypatch: pytest.MonkeyPatch):
    """The first answers are far ahead when the last prompt has been read."""
    monkeypatch.setattr(module, "QUESTION", "What color is it? " * 150)
    (row,) = bench(chat_model, [4], image_size=0, new_tokens=3, repeats=1)["rows"]
    assert row["prompt_tokens"] > 2 * 512


def test_the_speeds_of_a_machine():
    machine = measure_machine(torch.device("cpu"), torch.bfloat16)
    assert machine.name
    assert min(machine.threads, machine.read_bytes_per_s, machine.flops_per_s) > 0


def test_a_table_for_people(chat_model: ChatModel):
    facts = bench(chat_model, [1, 2], image_size=0, new_tokens=2, repeats=1)
    head, machine, *legend, names, one, two = report(facts).splitlines()
    rows = [one, two]
    for column in ("first token", "step", "floor", "share", "peak"):
        assert f"{column}: " in " ".join(legend)
    assert "float32" in head
    assert re.search(r"reads [\d,.]+ GB/s, multiplies [\d,]+ GFLOP/s", machine)
    assert re.split(" {2,}", names) == [
        *("batch", "prompt", "first token", "floor", "share"),
        *("step", "floor", "share", "tok/s each", "tok/s", "peak"),
    ]
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert len({len(row) for row in rows}) == 1


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"batch_sizes": [1, 0]}, "batch_size=0 must be a whole number of at least 1"),
        ({"batch_sizes": []}, "batch_size=0 must be a whole number of at least 1"),
        ({"image_size": -1}, "image_size=-1 must be a whole number of at least 0"),
        ({"new_tokens": 0}, "new_tokens=0 must be a whole number of at least 1"),
        ({"repeats": True}, "repeats=True must be a whole number of at least 1"),
        ({"new_tokens": 5000}, "but the model's context is 2048"),
    ],
)
def test_wrong_numbers_are_refused(chat_model: ChatModel, option: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        bench(chat_model, **{"image_size": 0} | option)


def test_more_than_the_cache_holds_is_refused(chat_model: ChatModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("neo.inference.engine.CACHE_SHARE", 0.0)
    monkeypatch.setattr("neo.inference.engine.free_memory", lambda device: 0)
    with pytest.raises(ValueError, match="too little for this model"):
        bench(chat_model, [1], image_size=0)
    per_token = cache_bytes_per_token(chat_model.model.config.text_config, torch.float32)
    monkeypatch.setattr("neo.inference.engine.CACHE_SHARE", 1.0)
    monkeypatch.setattr("neo.inference.engine.free_memory", lambda device: 1000 * per_token)
    with pytest.raises(ValueError, match=r"batch_size=8 takes 8 x \d+ tokens of cache, but there is room for 896"):
        bench(chat_model, [8], image_size=0, new_tokens=2)


def test_neo_bench(run: Any, refuse: Any, tiny_checkpoint: Path):
    words = ("bench", "--model", tiny_checkpoint, "--image-size", 64, "--new-tokens", 2, "--repeats", 1)
    facts = json.loads(run(*words, "--batch-size", "1,2", "--dtype", "bf16", "--json"))
    assert facts["dtype"] == "bfloat16"
    assert [row["batch_size"] for row in facts["rows"]] == [1, 2]
    assert "int8" in run(*words, "--batch-size", "2", "--quantization", "int8")
    assert "quantization='int3' must be one of" in refuse(*words, "--quantization", "int3")
    assert "--batch-size 1,x must be whole numbers" in refuse(*words, "--batch-size", "1,x")
    assert "batch_size=0 must be" in refuse(*words, "--batch-size", "0")
