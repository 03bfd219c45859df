"""Growing a NEO from a Qwen3 language model (ARCHITECTURE: building from a Qwen3 checkpoint).

The language model's layers move behind freshly drawn ones, the pre-Buffer. In each of them the new key projection for
rows and columns is zero, so the new parts add nothing to the scores: before any training, text passes through the
copied layers exactly as before.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neo.model import checkpoint
from neo.model.config import PRESETS, NeoConfig, NeoTextConfig, NeoVisionConfig
from neo.model.neo import NeoForConditionalGeneration, NeoLayer

SUPPORTED = ("qwen3", "neo_chat")


def from_llm(
    path: str | Path,
    pre_buffer_layers: int,
    vision: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    **token_ids: int,
) -> NeoForConditionalGeneration:
    """Grow a NEO from a Qwen3 checkpoint, or from a NEO without pre-Buffer that was trained on text.

    Args:
        path: folder of the language model (`config.json` and safetensors).
        pre_buffer_layers: how many fresh layers to put in front; 0 keeps the language model's logits exactly.
        vision: fields of `NeoVisionConfig`; the published ones unless given.
        dtype: dtype of the result; the language model's unless given.
        seed: seed of the fresh layers and the patch embedding.
        token_ids: `image_token_id`, `image_start_token_id`, `image_end_token_id`.

    Raises:
        ValueError: the folder holds no whole Qwen3, or the number of layers is negative.
    """
    config = grown_config(path, pre_buffer_layers, vision, dtype, **token_ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = NeoForConditionalGeneration(config).to(config.dtype)
    _copy_language_model(model, Path(path), pre_buffer_layers)
    return model


def grown_config(
    path: str | Path,
    pre_buffer_layers: int,
    vision: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    **token_ids: int,
) -> NeoConfig:
    """The configuration of what `from_llm` grows, from that of the language model alone.

    Raises:
        ValueError: as `from_llm`, as far as the configuration tells.
    """
    folder = Path(path)
    if pre_buffer_layers < 0:
        raise ValueError(f"pre_buffer_layers={pre_buffer_layers} must be 0 or more")
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no config.json here, so this is not a language model's folder")
    llm_config = json.loads((folder / "config.json").read_text())
    if llm_config.get("model_type") not in SUPPORTED:
        found = llm_config.get("model_type")
        raise ValueError(f"{folder}: model_type is {found!r}, but a NEO grows from one of {', '.join(SUPPORTED)}")
    if llm_config["model_type"] == "neo_chat":
        llm_config = {**llm_config["llm_config"], "dtype": llm_config.get("dtype")}
    if llm_config.get("extra_num_layers"):
        raise ValueError(
            f"{folder}: this model already has a pre-Buffer of {llm_config['extra_num_layers']} layers; "
            "grow from the language model it was made of"
        )
    text = {**llm_config, "extra_num_layers": pre_buffer_layers}
    text["num_hidden_layers"] = llm_config["num_hidden_layers"] + pre_buffer_layers
    dtype = dtype or getattr(torch, str(text.pop("dtype", None) or text.pop("torch_dtype", None) or "float32"))
    return NeoConfig(
        text_config=NeoTextConfig(**text),
        vision_config=NeoVisionConfig(**{**(vision or {}), "llm_hidden_size": text["hidden_size"]}),
        dtype=dtype,
        **token_ids,
    )


@torch.no_grad()
def _copy_language_model(model: NeoForConditionalGeneration, folder: Path, offset: int) -> None:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    copied = set()
    for name, tensor in _language_model_tensors(folder):
        target = _shifted(name, offset)
        if target == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if target not in parameters:
            raise ValueError(f"{folder}: tensor {name} has no place in a NEO; is this a Qwen3 checkpoint?")
        if parameters[target].shape != tensor.shape:
            raise ValueError(
                f"{folder}: tensor {name} has shape {list(tensor.shape)} but config.json asks for "
                f"{list(parameters[target].shape)}"
            )
        parameters[target].copy_(tensor)
        copied.add(target)
    if model.config.tie_word_embeddings:
        copied.add("lm_head.weight")
    for layer in model.model.language_model.layers[offset:]:
        _start_rows_and_columns(layer)
    expected = {
        name
        for name in parameters
        if not name.startswith("model.vision_model.")
        and not any(part in name for part in ("_proj_hw.", "_norm_h.", "_norm_w."))
        and not any(name.startswith(f"model.language_model.layers.{i}.") for i in range(offset))
    }
    if missing := sorted(expected - copied):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(
            f"{folder}: the weights lack tensor {_unshifted(missing[0], offset)}{more}, which config.json asks for; "
            "download the checkpoint again or mend its config.json"
        )


def _start_rows_and_columns(layer: NeoLayer) -> None:
    """H and W of a copied layer: keys zero, queries made of T's, norms one."""
    attention = layer.self_attn
    heads_C = attention.q_proj.weight.unflatten(0, (-1, attention.head_dim))
    first, _, third, _ = heads_C.chunk(4, dim=1)
    attention.q_proj_hw.weight.copy_(torch.cat([first, third, first, third], dim=1).flatten(0, 1))
    attention.k_proj_hw.weight.zero_()
    for norm in (attention.q_norm_h, attention.q_norm_w, attention.k_norm_h, attention.k_norm_w):
        norm.weight.fill_(1.0)  # type: ignore[operator]


def _language_model_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Names without NEO's prefixes and tensors of a Qwen3, or of the language model inside a NEO without pre-Buffer."""
    for _, name, tensor in checkpoint.tensors(folder):
        if name.startswith("vision_model.") or any(p in name for p in ("_proj_hw.", "_norm_h.", "_norm_w.")):
            continue
        yield name.removeprefix("language_model."), tensor[:]


def _shifted(name: str, offset: int) -> str:
    """A Qwen3 tensor's name in the module tree, its layer moved behind the pre-Buffer."""
    if name.startswith("lm_head."):
        return name
    parts = name.removeprefix("model.").split(".")
    if parts[0] == "layers":
        parts[1] = str(int(parts[1]) + offset)
    return ".".join(["model.language_model", *parts])


def _unshifted(name: str, offset: int) -> str:
    """The inverse of `_shifted`."""
    parts = name.removeprefix("model.language_model.").split(".")
    if parts[0] == "layers":
        parts[1] = str(int(parts[1]) - offset)
    return name if name.startswith("lm_head.") else ".".join(["model", *parts])


def vision_of(preset: str) -> dict[str, Any]:
    """The vision fields of a preset, to pass as `vision`."""
    return dict(PRESETS[preset]["vision"])
