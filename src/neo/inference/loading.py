"""A folder on disk to a model that answers: `neo.load_model`.

Weights are read through memory maps, one tensor at a time, so that what is quantised or converted is never in memory
twice; what is right as it lies in the file is used there. Projections of the same inputs are put together.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn
from transformers import GenerationConfig

from neo.inference.chat import ChatModel
from neo.inference.quantize import PARTS, aligned, check_quantization, quantize, restored, tie_head
from neo.model import checkpoint, names
from neo.model.adapter import load_adapter, merge_adapter
from neo.model.config import NeoConfig
from neo.model.device import DTYPES, choose_device
from neo.model.linear import join
from neo.model.neo import NeoForConditionalGeneration
from neo.processing.processor import NeoProcessor
from neo.suggestion import suggestion


def load_model(
    name: str | Path = "neo-demo",
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    download: bool = False,
    adapter: str | Path | None = None,
    quantization: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    warm_up: bool = False,
    **config_overrides: Any,
) -> ChatModel:
    """Load a NEO and everything needed to ask it.

    Args:
        name: "neo-demo", a published name such as "NEO-2B-SFT", a hub id or a folder.
        dtype: "fp32", "bf16", "fp16" or a torch dtype; "auto" is the checkpoint's.
        device: "cpu", "cuda", "cuda:1", "mps"; "auto" is the best there is, cuda before mps before cpu.
        download: fetch a hub id that is not in the local cache; without it nothing is fetched.
        adapter: folder of a LoRA adapter that was trained on this model; `neo export` merges the two for good.
        quantization: "int8" or "int4" for weights in so many bits, see `neo.inference.quantize`; an adapter is merged
            then. A folder of quantised weights is what it is without it.
        device_map: "auto" spreads the layers over several GPUs by accelerate, as in transformers; in place of device.
        warm_up: answer one token about a picture before returning, so that the first question is no slower.
        config_overrides: fields of `NeoConfig` to change, `attn_implementation`, or `min_pixels` and
            `max_pixels`, the area in pixels between which pictures are scaled.

    Raises:
        ValueError: the model is unknown or not on this machine, its files are not whole, the adapter is another
            model's, an option is wrong.
    """
    chosen_dtype, chosen_device = _dtype(dtype), choose_device(device)
    pixels = {key: config_overrides.pop(key) for key in ("min_pixels", "max_pixels") if key in config_overrides}
    _check_names(config_overrides)
    folder = names.resolve(name, download)
    names.read_config(folder)
    stored = checkpoint.quantization(folder)
    check_quantization(quantization or stored, chosen_device)
    if stored and quantization not in (None, stored):
        raise ValueError(
            f"{folder}: its weights are {stored} already; quantise the model it was made from to {quantization}"
        )
    if stored and adapter is not None:
        raise ValueError(
            f"{folder}: an adapter does not fit {stored} weights; merge it into the model they were made from"
        )
    if device_map is not None and (device != "auto" or quantization or stored):
        raise ValueError("device_map spreads a model in its own dtype over GPUs: leave out device and quantization")
    _check_tokenizer(folder)
    try:
        processor = NeoProcessor.from_pretrained(folder, **pixels)
        fields_given = processor.ids.config_fields() | config_overrides
        if device_map is not None:
            model = _spread(folder, chosen_dtype, device_map, fields_given)
        else:
            model = _mapped(folder, fields_given)
    except (OSError, StrictDataclassError) as error:
        raise ValueError(f"{folder}: cannot be loaded ({' '.join(str(error).split())})") from error
    if device_map is None:
        numbers = chosen_dtype if isinstance(chosen_dtype, torch.dtype) else model.config.dtype or model.dtype
        if quantization and not stored:
            if adapter is not None:
                merge_adapter(load_adapter(model, adapter))
            quantize(model, quantization, numbers)
        _place(model, numbers, chosen_device)
        join_projections(model)
        model.config.dtype = numbers
    if adapter is not None and not quantization:
        load_adapter(model, adapter)
    loaded = ChatModel(model.eval().requires_grad_(False), processor, str(name))
    if warm_up:
        loaded.generate(image=Image.new("RGB", (64, 64)), text="Hello", max_new_tokens=1)
        loaded.engine.memory.forget()
    return loaded


def join_projections(model: NeoForConditionalGeneration) -> None:
    """Let each layer's projections of the same inputs be one product; see `neo.model.linear.join`."""
    for layer in model.model.language_model.layers:
        join(layer.self_attn.in_projections())  # type: ignore[operator, union-attr]
        join(layer.mlp.in_projections())  # type: ignore[operator, union-attr]


def _dtype(dtype: str | torch.dtype) -> str | torch.dtype:
    if (isinstance(dtype, torch.dtype) and dtype.is_floating_point) or dtype == "auto":
        return dtype
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} must be auto, {', '.join(DTYPES)} or a floating-point torch dtype")
    return DTYPES[str(dtype)]


def _check_names(overrides: Mapping[str, Any]) -> None:
    known = [*(field.name for field in fields(NeoConfig)), "attn_implementation", "min_pixels", "max_pixels"]
    for key in overrides:
        if key not in known:
            raise ValueError(f"{key} is not an option of load_model or a field of NeoConfig{suggestion(key, known)}")


def _check_tokenizer(folder: Path) -> None:
    if (folder / "tokenizer.json").is_file():
        tokenizer = names.read_json(folder / "tokenizer.json")
        if not isinstance(tokenizer, dict) or not {"model", "added_tokens"} <= tokenizer.keys():
            raise ValueError(f"{folder / 'tokenizer.json'}: this is not a tokenizer's file (no model, no added_tokens)")
    elif not (folder / "vocab.json").is_file():
        raise ValueError(f"{folder}: no tokenizer.json here; a NEO needs its tokenizer beside its weights")


def _spread(folder: Path, dtype: Any, device_map: Any, config_fields: dict[str, Any]) -> NeoForConditionalGeneration:
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise ValueError("device_map needs accelerate: pip install accelerate") from error
    with checkpoint.without_progress_bars():
        return NeoForConditionalGeneration.from_pretrained(folder, dtype=dtype, device_map=device_map, **config_fields)


def _mapped(folder: Path, config_fields: dict[str, Any]) -> NeoForConditionalGeneration:
    """The model of a folder, its tensors as they lie in the files, which are read where they are looked at."""
    attention = config_fields.pop("attn_implementation", None)
    config = NeoConfig.from_pretrained(folder, **config_fields)
    quantized = checkpoint.quantization(folder) is not None
    checkpoint.check_folder(folder, config, shapes=not quantized)
    with torch.device("meta"):
        model = NeoForConditionalGeneration(config)
    if attention is not None:
        model.set_attn_implementation(attention)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)

    places = {checkpoint.our_name(name): (file, name) for file, name, _ in checkpoint.tensors(folder)}
    embedding = model.get_input_embeddings()
    for name, parameter in list(model.named_parameters()):
        path, _, part = name.rpartition(".")
        module = model.get_submodule(path)
        if not quantized or f"{path}.scale" not in places:
            setattr(module, part, nn.Parameter(_read(*places[name]), requires_grad=False))
            continue
        parts = {part: _read(*places[f"{path}.{part}"]) for part in PARTS if f"{path}.{part}" in places}
        try:
            layer = restored(parts, parameter.shape, module is embedding)
        except ValueError as error:
            raise ValueError(f"{folder}: {path} does not fit config.json ({error}); make the folder again") from error
        model.set_submodule(path, layer)
    if config.tie_word_embeddings:
        tie_head(model)
    return model


def _read(file: Path, name: str) -> Tensor:
    """A tensor where it lies in a file, by a map of its own that ends with it."""
    with safe_open(file, framework="pt") as opened:
        return opened.get_tensor(name)


def _place(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Convert and move what is not right as it is; the largest first, while little is there beside its copy."""
    leaves = [module for module in model.modules() if not list(module.children())]
    for module in sorted(leaves, key=lambda leaf: sum(one.nbytes for one in _tensors(leaf)), reverse=True):
        module.to(device, dtype)
        for tensor in _tensors(module):
            if device.type == "cpu":
                tensor.data = aligned(tensor.data)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]
