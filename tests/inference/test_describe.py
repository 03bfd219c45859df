"""What `neo info` says of a model's memory, against models that are really loaded."""

from pathlib import Path
from typing import Any

import pytest

import neo
from neo.inference import describe as module
from neo.inference.bench import _bytes_of
from neo.inference.cache import cache_dtype
from neo.inference.describe import describe, report
from neo.inference.engine import CACHE_SHARE
from neo.inference.export import export
from neo.inference.quantize import quantization_of
from neo.model.sizes import cache_bytes_per_token

WAYS = {"fp32": ("fp32", None), "bf16": ("bf16", None), "int8": ("bf16", "int8"), "int4": ("bf16", "int4")}


def needed(folder: Path, dtype: str, quantization: str | None) -> int:
    """By loading it: the weights, and memory of which the cache's share holds the context."""
    loaded = neo.load_model(str(folder), dtype=dtype, device="cpu", quantization=quantization)
    cache = 2048 * cache_bytes_per_token(loaded.model.config, cache_dtype([loaded.model.device], loaded.model.dtype))
    return _bytes_of(loaded.model) + int(cache / CACHE_SHARE)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set what is free on this machine, which has no GPU."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    return lambda count: monkeypatch.setattr(module, "free_memory", lambda device: count)


def test_what_fits_is_what_loading_takes(tiny_checkpoint: Path, free: Any):
    right = {name: needed(tiny_checkpoint, *way) for name, way in WAYS.items()}
    free(right["bf16"])
    here = describe(str(tiny_checkpoint))["here"]
    assert here["needed_bytes"] == right
    assert (here["device"], here["context"], here["free_bytes"]) == ("cpu", 2048, right["bf16"])
    line = next(line for line in report(describe(str(tiny_checkpoint))).splitlines() if line.startswith("fits here"))
    fitting, others, cache = line.split("; ")
    assert [word for word in WAYS if word in fitting] == [name for name in WAYS if right[name] <= right["bf16"]]
    assert others.startswith("not fp32 (")
    assert others.endswith("are free on cpu")
    assert cache == f"the cache gets {CACHE_SHARE:.0%} of what weights leave"
    free(10)
    assert "fits here           nothing; not fp32" in report(describe(str(tiny_checkpoint)))


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_quantised_checkpoint_is_described_as_it_is(tiny_checkpoint: Path, tmp_path: Path, free: Any, quantization):
    free(2**40)
    folder = export(tiny_checkpoint, tmp_path / "out", dtype="bf16", quantization=quantization)
    facts = describe(str(folder))
    loaded = neo.load_model(str(folder))
    assert facts["quantization"] == quantization_of(loaded.model)
    cache = 2048 * cache_bytes_per_token(loaded.model.config, loaded.model.dtype)
    assert facts["serving_bytes"] == _bytes_of(loaded.model) + cache
    assert facts["here"]["needed_bytes"] == {quantization: needed(folder, "auto", None)}
    assert facts["parameters"] == describe(str(tiny_checkpoint))["parameters"]
    assert f"dtype               bfloat16, weights in {quantization}" in report(facts)


def test_what_cannot_be_had_is_said(tiny_checkpoint: Path, free: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("neo.inference.quantize._half_block", lambda: 0)
    free(2**40)
    facts = describe(str(tiny_checkpoint))
    assert "int4" not in facts["here"]["needed_bytes"]
    assert "quantization='int4' is not to be had on this processor: take int8" in report(facts)
