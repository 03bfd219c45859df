"""A model on disk made into another one that stands by itself: adapters merged, another dtype, fewer bits."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from neo.inference.chat import ChatModel
from neo.inference.loading import load_model
from neo.inference.quantize import quantization_of, stored_tensors
from neo.model import checkpoint, names
from neo.model.adapter import merge_adapter
from neo.model.device import DTYPES


def export(
    name: str | Path,
    output: str | Path,
    adapter: str | Path | None = None,
    dtype: str | None = None,
    download: bool = False,
    quantization: str | None = None,
) -> Path:
    """Write a model and its processor in the published layout.

    Args:
        name: the model, as in `load_model`.
        output: folder to write, new or empty.
        adapter: folder of a LoRA adapter to merge into it; the sum is made in float32.
        dtype: "fp32", "bf16" or "fp16"; the model's own unless given.
        download: as in `load_model`.
        quantization: "int8" or "int4": weights that only `load_model` reads; dtype is that of all else then.

    Returns:
        The folder written.

    Raises:
        ValueError: as `load_model`, or the output folder is not free.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} must be one of {', '.join(DTYPES)}")
    target = names.new_folder(output)
    folder = names.resolve(name, download)
    stored = names.read_config(folder)
    if (weights := checkpoint.quantization(folder)) is not None:
        raise ValueError(f"{folder}: its weights are {weights}; export the model that they were made from")
    if quantization is not None:
        loaded = load_model(name, dtype or "auto", "cpu", download, adapter, quantization)
        return save_quantized(loaded, target)
    own = getattr(torch, str(stored.get("dtype") or stored.get("torch_dtype") or "float32"))
    loaded = load_model(name, dtype="fp32", device="cpu", download=download, adapter=adapter)
    if adapter is not None:
        merge_adapter(loaded.model)
    loaded.model.to(DTYPES[dtype] if dtype else own)
    try:
        with checkpoint.without_progress_bars():
            loaded.model.save_pretrained(target)
        loaded.processor.save_pretrained(target)
    except (OSError, SafetensorError) as error:  # a full disk is the latter
        raise ValueError(f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    return target


def save_quantized(loaded: ChatModel, output: str | Path) -> Path:
    """Write a model that was loaded with a quantisation, and its processor, for `load_model` to read as it is.

    The names are the published ones; a quantised `weight` has its `scale`, in int4 also its `zero`, beside it.
    `quantization_config` in config.json says what it is.

    Raises:
        ValueError: the model is not quantised, or the output folder is not free.
    """
    target, quantization = names.new_folder(output), quantization_of(loaded.model)
    if quantization is None:
        raise ValueError("the model is not quantised: load it with quantization='int8' or 'int4' to save it so")
    tensors = {checkpoint.published_name(name): tensor.cpu() for name, tensor in stored_tensors(loaded.model).items()}
    try:
        target.mkdir(parents=True, exist_ok=True)
        save_file(tensors, target / checkpoint.WEIGHTS, metadata={"format": "pt"})
        loaded.model.config.save_pretrained(target)
        entry = {checkpoint.QUANTIZATION: {"quant_method": "neo", "weights": quantization}}
        config = names.read_json(target / "config.json") | entry
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        loaded.model.generation_config.save_pretrained(target)
        loaded.processor.save_pretrained(target)
    except (OSError, SafetensorError) as error:  # a full disk is the latter
        raise ValueError(f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    return target
