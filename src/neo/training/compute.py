"""How the layers compute in training: kernels of attention, what is computed twice to save memory, compilation."""

from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from neo.model.neo import NeoForConditionalGeneration, NeoLayer
from neo.training.config import TrainConfig


def prepare_layers(model: NeoForConditionalGeneration, config: TrainConfig, device: torch.device) -> None:
    """Set up a model's layers for training as a recipe says, before the model is spread over ranks.

    Raises:
        ValueError: FlexAttention is to train on a CPU.
    """
    model.set_attn_implementation(attention_backend(config.attention, device))
    layers = [module for module in model.modules() if isinstance(module, NeoLayer)]
    every = {"none": 0, "selective": config.activation_checkpointing_every, "full": 1}[config.activation_checkpointing]
    for number, layer in enumerate(layers, start=1):
        # In place of `forward`, not of the module: names and hooks, those of sharding included, stay around it.
        if config.compile:
            layer.forward = torch.compile(layer.forward)  # type: ignore[method-assign]
        if every and number % every == 0:
            # Only the dropout of adapters draws random numbers, which are then to be the same again.
            draws = config.lora is not None and config.lora.dropout > 0
            again = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=draws)
            layer.forward = again  # type: ignore[method-assign]


def attention_backend(wanted: str, device: torch.device) -> str:
    """The fastest exact attention of a device, unless another is wanted: FlexAttention's block masks on a GPU.

    Raises:
        ValueError: FlexAttention is wanted on a CPU, where it has no gradients.
    """
    if wanted == "flex_attention" and device.type != "cuda":
        raise ValueError(f"attention=flex_attention trains on a GPU only, not on {device.type}; use auto")
    if wanted != "auto":
        return wanted
    return "flex_attention" if device.type == "cuda" and torch.utils._triton.has_triton() else "sdpa"
