"""What a NEO of some configuration costs: parameters, cache, arithmetic, memory. Nothing is allocated.

Parameters are counted on the module tree itself, built on the meta device; the rest follows from the layers
(`neo.py`).
"""

from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import nn

from neo.model.config import NeoConfig, NeoTextConfig
from neo.model.neo import NeoForConditionalGeneration

TRAINING_BYTES = 4 + 4 + 8
"""Of each trained parameter under AdamW in mixed precision: weight, gradient and two moments, all float32."""


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters by part."""

    patch_embedding: int
    pre_buffer: int | None
    """None where the configuration does not tell its layers apart; `language_model` counts them all."""
    language_model: int
    """Layers behind the pre-Buffer, and the final norm."""
    embedding: int
    head: int
    """0 where it is the embedding."""

    @property
    def total(self) -> int:
        return sum(count or 0 for count in asdict(self).values())


def count_parameters(config: NeoConfig) -> Parameters:
    """Parameters by part; a head tied to the embedding is counted there."""
    model = _on_meta(config)
    decoder = model.model.language_model
    depth = config.text_config.pre_buffer_layers  # type: ignore[union-attr]
    layers = list(decoder.layers)
    return Parameters(
        patch_embedding=_count(model.model.vision_model),
        pre_buffer=None if depth is None else _count(*layers[:depth]),
        language_model=_count(*layers[depth or 0 :], decoder.norm),
        embedding=_count(decoder.embed_tokens),
        head=0 if config.tie_word_embeddings else _count(model.lm_head),
    )


def cache_bytes_per_token(config: NeoConfig, dtype: torch.dtype = torch.bfloat16) -> int:
    """Keys (twice as wide as values: T beside H and W) and values of all layers."""
    text = cast(NeoTextConfig, config.text_config)
    return 3 * text.head_dim * text.num_key_value_heads * text.num_hidden_layers * dtype.itemsize


def flops_per_token(config: NeoConfig, context: int = 0) -> int:
    """Floating-point operations to read or say one token behind `context` others.

    Two for each weight of a matrix of the layers and the head, and for each token in view two for every
    channel of every query and value. Norms, rotations, softmax and the patch embedding are left
    out. Training takes three times as many.
    """
    text = cast(NeoTextConfig, config.text_config)
    model = _on_meta(config)
    layers = [module for module in model.model.language_model.modules() if isinstance(module, nn.Linear)]
    attention = 3 * text.head_dim * text.num_attention_heads * text.num_hidden_layers * (context + 1)
    return 2 * (_count(*layers, model.lm_head) + attention)


def serving_bytes(
    config: NeoConfig, dtype: torch.dtype = torch.bfloat16, context: int = 4096, requests: int = 1
) -> int:
    """Weights and the caches of so many requests of `context` tokens; a forward's own work comes on top."""
    weights = count_parameters(config).total * dtype.itemsize
    return weights + requests * context * cache_bytes_per_token(config, dtype)


def training_bytes(config: NeoConfig, trained: int | None = None) -> int:
    """Weights, gradients and AdamW's moments; activations, which depend on batch and length, come on top.

    Args:
        config: the model.
        trained: how many parameters are trained, all unless given; the others are held as float32 weights.
    """
    total = count_parameters(config).total
    trained = total if trained is None else trained
    return trained * TRAINING_BYTES + (total - trained) * 4


def _on_meta(config: NeoConfig) -> NeoForConditionalGeneration:
    with torch.device("meta"):
        return NeoForConditionalGeneration(config)


def _count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
