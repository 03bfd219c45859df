"""What `neo info` tells about a model, from its configuration and model card alone: no weights are read. And what of
it fits into this machine's memory."""

import re
from typing import Any

import torch

from neo.inference.cache import cache_dtype
from neo.inference.engine import CACHE_SHARE
from neo.inference.quantize import QUANTIZATIONS, check_quantization, weight_bytes
from neo.model import checkpoint, names, sizes
from neo.model.config import NeoConfig, preset
from neo.model.device import DTYPES, choose_device, free_memory
from neo.model.neo import NeoForConditionalGeneration

CONTEXT = 4096
"""Tokens that arithmetic and serving memory are stated for, or the model's context if that is shorter."""


def describe_preset(name: str) -> dict[str, Any]:
    """The facts of a size, as served in bf16; bytes and single operations.

    Raises:
        ValueError: there is no such preset.
    """
    return {"model": f"preset {name}"} | _facts(preset(name), torch.bfloat16)


def describe(name: str, download: bool = False) -> dict[str, Any]:
    """The facts of a model on this machine: those of its size, its folder and what its card says it can do.

    Args:
        name: as in `neo.load_model`.
        download: as in `neo.load_model`.

    Raises:
        ValueError: as `neo.load_model`.
    """
    folder = names.resolve(name, download)
    stored = names.read_config(folder)
    config = NeoConfig.from_pretrained(folder)
    dtype = getattr(torch, str(stored.get("dtype") or stored.get("torch_dtype") or "float32"), torch.float32)
    facts = {"model": name, "folder": str(folder)} | _facts(config, dtype, checkpoint.quantization(folder))
    if (card := folder / "README.md").is_file():
        facts["card"] = abilities(card.read_text(encoding="utf-8"))
    return facts


def abilities(card: str) -> str | None:
    """The section of a model card whose heading speaks of what the model cannot do."""
    found = re.search(r"^(#+)[^\n]*\b(?:cannot|can't|limitations)\b[^\n]*\n", card, re.MULTILINE | re.IGNORECASE)
    if found is None:
        return None
    after = re.search(rf"^#{{1,{len(found[1])}}} ", card[found.end() :], re.MULTILINE)
    return card[found.end() :][: after.start() if after else None].strip()


def report(facts: dict[str, Any]) -> str:
    """The facts for people."""
    lines = [facts["model"]]
    if "folder" in facts:
        lines.append(f"  in {facts['folder']}")
    parameters = facts["parameters"]
    depth, layers, context = facts["pre_buffer_layers"], facts["layers"], facts["context_for_figures"]
    named = {"patch embedding": parameters["patch_embedding"]}
    if depth is None:
        named[f"{layers} layers (the pre-Buffer's not told)"] = parameters["language_model"]
    else:
        named[f"pre-Buffer, {depth} layers"] = parameters["pre_buffer"]
        named[f"language model, {layers - depth} layers"] = parameters["language_model"]
    named["embedding"] = parameters["embedding"]
    named["head"] = parameters["head"]
    counts = {name: f"{count:,}" for name, count in named.items()}
    if not parameters["head"]:
        counts["head"] = "the embedding"
    lines += ["", f"{'parameters':<34}{parameters['total']:>16,}"]
    lines += [f"  {name:<32}{count:>16}" for name, count in counts.items()]
    few, many = facts["image_pixels"]
    rows = {
        "dtype": facts["dtype"] + (f", weights in {facts['quantization']}" if facts["quantization"] else ""),
        "context": f"{facts['context']:,} steps (a word token, or a whole picture)",
        "pictures": f"scaled to {_range(few, many)} pixels, {_range(few // 1024, many // 1024)} tokens",
        "KV cache per token": _bytes(facts["cache_bytes_per_token"]),
        "FLOPs per token": f"{_operations(facts['flops_per_token'])}, behind {context:,} tokens "
        f"{_operations(facts['flops_per_token_in_context'])}",
        "memory to serve": f"{_bytes(facts['serving_bytes'])}: weights in {facts['quantization'] or facts['dtype']} "
        f"and the cache of {context:,} tokens",
        "fits here": _fits(facts["here"]),
        "memory to train": f"{_bytes(facts['training_bytes'])}: all of it with AdamW in mixed precision, and "
        "activations on top",
    }
    lines += ["", *(f"{name:<20}{value}" for name, value in rows.items())]
    if facts.get("card"):
        lines += ["", "What it can and cannot do", "", facts["card"]]
    return "\n".join(lines)


def _here(model: NeoForConditionalGeneration, context: int, stored: tuple[torch.dtype, str] | None) -> dict[str, Any]:
    """Free bytes of this machine's best device, and those that each way of loading the model needs there.

    These are the weights, and so much for the engine that its cache, a share of that, holds `context` tokens.
    """
    device = choose_device("auto")
    ways: dict[str, tuple[torch.dtype, str | None]] = {name: (DTYPES[name], None) for name in ("fp32", "bf16")}
    ways |= {name: (torch.bfloat16, name) for name in QUANTIZATIONS}
    if stored:  # nothing else can be made of it
        ways = {stored[1]: stored}
    needed: dict[str, int] = {}
    refused: dict[str, str] = {}
    for name, (dtype, quantization) in ways.items():
        try:
            check_quantization(quantization, device)
        except ValueError as error:
            refused[name] = str(error)
            continue
        cache = context * sizes.cache_bytes_per_token(model.config, cache_dtype([device], dtype))
        needed[name] = weight_bytes(model, dtype, quantization) + int(cache / CACHE_SHARE)
    free = {"device": str(device), "free_bytes": free_memory(device)}
    return {**free, "context": context, "needed_bytes": needed, "refused": refused}


def _fits(here: dict[str, Any]) -> str:
    """Which ways fit, for people."""
    sized = {name: f"{name} ({_bytes(needed)})" for name, needed in here["needed_bytes"].items()}
    fitting = [text for name, text in sized.items() if here["needed_bytes"][name] <= here["free_bytes"]]
    others = [text for text in sized.values() if text not in fitting]
    told = [", ".join(fitting) or "nothing", *here["refused"].values()]
    if others:
        told.insert(1, f"not {', '.join(others)}")
    free = f"{_bytes(here['free_bytes'])} are free on {here['device']}"
    return f"{'; '.join(told)}. {free}; the cache gets {CACHE_SHARE:.0%} of what weights leave"


def _facts(config: NeoConfig, dtype: torch.dtype, quantization: str | None = None) -> dict[str, Any]:
    text: Any = config.text_config
    vision: Any = config.vision_config
    parameters = sizes.count_parameters(config)
    context = min(CONTEXT, text.max_position_embeddings)
    with torch.device("meta"):
        model = NeoForConditionalGeneration(config)
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "quantization": quantization,
        "layers": text.num_hidden_layers,
        "pre_buffer_layers": text.pre_buffer_layers,
        "parameters": {"total": parameters.total, **vars(parameters)},
        "context": text.max_position_embeddings,
        "image_pixels": [vision.min_pixels, vision.max_pixels],
        "context_for_figures": context,
        "cache_bytes_per_token": sizes.cache_bytes_per_token(config, dtype),
        "flops_per_token": sizes.flops_per_token(config),
        "flops_per_token_in_context": sizes.flops_per_token(config, context),
        "serving_bytes": weight_bytes(model, dtype, quantization)
        + context * sizes.cache_bytes_per_token(config, dtype),
        "training_bytes": sizes.training_bytes(config),
        "here": _here(model, context, (dtype, quantization) if quantization else None),
    }


def _range(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _bytes(count: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024  # type: ignore[assignment]
    return f"{count:,.4g} GiB"


def _operations(count: int) -> str:
    return f"{count / 1e9:.3g} G" if count >= 1e9 else f"{count / 1e6:.3g} M"
