"""LoRA (Hu et al. 2021) and QLoRA (Dettmers et al. 2023): adapters are trained beside a frozen model."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from neo.model.adapter import PROJECTIONS, add_adapter, check_peft, save_adapter
from neo.model.neo import NeoForConditionalGeneration
from neo.processing.processor import NeoProcessor
from neo.training.config import LoraConfig
from neo.training.stages import Parts, parts, table

logger = logging.getLogger(__name__)

ADAPTERS = "LoRA adapters"


def add_lora(model: NeoForConditionalGeneration, config: LoraConfig, base: str, seed: int, bf16: bool) -> Parts:
    """Freeze a model and put fresh adapters into it; log what is trained as a table.

    Args:
        model: float32; it may be on the meta device.
        config: of the adapters.
        base: what their files are to call the model.
        seed: of their weights.
        bf16: compute with 4-bit weights in bfloat16.

    Returns:
        The parameters of the model by part, and those of the adapters.

    Raises:
        ValueError: peft, or with `quantize` bitsandbytes, is missing.
    """
    check_peft()
    import peft

    by_part = parts(model)
    if config.quantize:
        _quantize(model, torch.bfloat16 if bf16 else torch.float32)
    chosen = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.scaled_by,
        lora_dropout=config.dropout,
        target_modules=list(config.target_modules or PROJECTIONS),
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapters = add_adapter(model, chosen)
    by_part[ADAPTERS] = adapters
    logger.info("LoRA of rank %d trains:\n%s", config.rank, table(by_part))
    return by_part


def save_lora(
    model: NeoForConditionalGeneration, processor: NeoProcessor, folder: Path, weights: dict[str, Tensor]
) -> None:
    """Write adapters and processor into a folder; `weights` are the model's, whole."""
    save_adapter(model, folder, weights)
    processor.save_pretrained(folder)


def _quantize(model: NeoForConditionalGeneration, compute_dtype: torch.dtype) -> None:
    """Hold the matrices of the layers in 4 bits (NF4, its scales quantised too); they are so once on their device."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise ValueError(
            "lora.quantize needs bitsandbytes: install the extra with pip install 'neo-vlm[qlora]'"
        ) from error
    how: dict[str, Any] = {"compress_statistics": True, "quant_type": "nf4"}
    for name, module in list(model.model.language_model.layers.named_modules()):
        if isinstance(module, nn.Linear):
            sizes = (module.in_features, module.out_features)
            quantized = bitsandbytes.nn.Linear4bit(
                *sizes, bias=False, compute_dtype=compute_dtype, device="meta", **how
            )
            quantized.weight = bitsandbytes.nn.Params4bit(module.weight.data, requires_grad=False, **how)
            # Some CPUs would pack the weights at the first evaluation, and have wrong gradients from then on.
            quantized.support_avx512bf16_for_cpu = False
            model.model.language_model.layers.set_submodule(name, quantized)
    model.is_loaded_in_4bit = True  # what peft asks
