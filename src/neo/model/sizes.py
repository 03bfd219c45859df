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


def cache_bytes_per_token(config: NeoConfig | NeoTextConfig, dtype: torch.dtype = torch.bfloat16) -> int:
    """Keys (twice as wide as values: T beside H and W) and values of all layers."""
    text = cast(NeoTextConfig, config.get_text_config())
    return 3 * text.head_dim * text.num_key_value_heads * text.num_hidden_layers * dtype.itemsize


@dataclass(frozen=True)
class Arithmetic:
    """What a network multiplies and adds, by what it depends on.

    A weight of a matrix, and a channel of a query or value for each token in view, is one multiplication and one
    addition: two operations. Norms, rotations, softmax and the patch embedding are left out.
    """

    layers: int
    """Weights of the layers' matrices, which every token meets."""
    layers_trained: int
    """Those of them that are trained."""
    head: int
    """Weights of the head, which a token meets whose next one is asked for."""
    head_trained: int
    """These, where they are trained."""
    attention: int
    """Channels of all queries and values, met by every pair of a token and one that it sees."""

    @classmethod
    def of(cls, model: NeoForConditionalGeneration) -> "Arithmetic":
        """That of a network on any device, sharded or not, adapters included."""
        text = model.config.text_config
        matrices = [module for module in model.model.language_model.modules() if isinstance(module, nn.Linear)]
        return cls(
            layers=sum(_weights(matrix) for matrix in matrices),
            layers_trained=sum(_weights(matrix) for matrix in matrices if matrix.weight.requires_grad),
            head=_weights(model.lm_head),
            head_trained=_weights(model.lm_head) if model.lm_head.weight.requires_grad else 0,
            attention=3 * text.head_dim * text.num_attention_heads * text.num_hidden_layers,
        )

    def forward(self, tokens: int, pairs: int, predicted: int) -> int:
        """Floating-point operations of a forward.

        Args:
            tokens: tokens in all.
            pairs: pairs of a token and one that it sees, itself included.
            predicted: tokens whose next one is asked for.
        """
        return 2 * (self.layers * tokens + self.attention * pairs + self.head * predicted)

    def training(self, tokens: int, pairs: int, predicted: int) -> int:
        """Those of a forward and a backward pass, which needs as many again for the inputs of each product and, where
        a matrix is trained, as many for its weights. What is computed a second time to save memory is not counted.
        """
        weights = 2 * (self.layers_trained * tokens + self.attention * pairs + self.head_trained * predicted)
        return 2 * self.forward(tokens, pairs, predicted) + weights


def flops_per_token(config: NeoConfig, context: int = 0) -> int:
    """Floating-point operations to read or say one token behind `context` others; see `Arithmetic`."""
    return Arithmetic.of(_on_meta(config)).forward(1, context + 1, 1)


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


def _weights(matrix: nn.Linear) -> int:
    return matrix.in_features * matrix.out_features  # also where its tensor holds two of them in a byte


def _count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
