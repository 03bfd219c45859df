"""A model on disk made into another one that stands by itself: adapters merged, another dtype."""

from pathlib import Path

import torch

from neo.inference.chat import load_model
from neo.model import names
from neo.model.adapter import merge_adapter
from neo.model.device import DTYPES


def export(
    name: str | Path,
    output: str | Path,
    adapter: str | Path | None = None,
    dtype: str | None = None,
    download: bool = False,
) -> Path:
    """Write a model and its processor in the published layout.

    Args:
        name: the model, as in `load_model`.
        output: folder to write, new or empty.
        adapter: folder of a LoRA adapter to merge into it; the sum is made in float32.
        dtype: "fp32", "bf16" or "fp16"; the model's own unless given.
        download: as in `load_model`.

    Returns:
        The folder written.

    Raises:
        ValueError: as `load_model`, or the output folder is not free.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} must be one of {', '.join(DTYPES)}")
    target = names.new_folder(output)
    stored = names.read_config(names.resolve(name, download))
    own = getattr(torch, str(stored.get("dtype") or stored.get("torch_dtype") or "float32"))
    loaded = load_model(name, dtype="fp32", device="cpu", download=download, adapter=adapter)
    if adapter is not None:
        merge_adapter(loaded.model)
    loaded.model.to(DTYPES[dtype] if dtype else own)
    try:
        loaded.model.save_pretrained(target)
        loaded.processor.save_pretrained(target)
    except OSError as error:
        raise ValueError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target
