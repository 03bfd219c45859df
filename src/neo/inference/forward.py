"""One forward for any mix of requests: the next tokens of several sequences, one after the other in one row.

Words to be prefilled, whole pictures and single tokens to be decoded stand side by side; everything but attention
treats them alike, and attention looks up each sequence's own store. No padding, no mask across sequences.

Shapes: T tokens of all spans, C hidden size, K key heads, H query heads, D head_dim, E = 2 * head_dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from neo.inference.cache import Store
from neo.model.attention import Attend, attend_one
from neo.model.masks import AttentionMask
from neo.model.neo import NeoForConditionalGeneration, NeoTextModel
from neo.model.positions import TEXT


@dataclass(frozen=True)
class Picture:
    """A picture's place in a sequence."""

    start: int
    stop: int
    content: int
    """Stands for its pixels, below 0."""


@dataclass(frozen=True)
class Span:
    """The next tokens of one sequence; its store holds those before them."""

    store: Store
    ids: list[int]
    contents: np.ndarray
    positions_3L: Tensor
    pictures: Sequence[Picture] = ()
    """Those whose tokens are in the span."""
    features: Sequence[Tensor] = ()
    """Their vectors, (tokens, C) each."""

    @property
    def start(self) -> int:
        """Place of the first of them in the sequence."""
        return self.store.length


def layer_devices(decoder: NeoTextModel) -> list[torch.device]:
    """Where each layer computes: where its weights are, or, spread by accelerate, where its hook brings its inputs."""
    hooked = [getattr(getattr(layer, "_hf_hook", None), "execution_device", None) for layer in decoder.layers]
    return [
        next(layer.parameters()).device if device is None else torch.device(device)
        for layer, device in zip(decoder.layers, hooked, strict=True)
    ]


@torch.inference_mode()
def forward(model: NeoForConditionalGeneration, spans: Sequence[Span]) -> Tensor:
    """Compute the tokens of all spans and put them into their stores.

    Returns:
        (spans, V) logits of what follows each span.
    """
    decoder = model.model.language_model
    lengths = [len(span.ids) for span in spans]
    first = spans[0].store.keys[0].device
    ids_T = torch.tensor([token for span in spans for token in span.ids], device=first)
    x_1TC = decoder.embed_tokens(ids_T)[None]
    offsets = np.cumsum([0, *lengths])
    for span, offset in zip(spans, offsets, strict=False):
        for picture, features in zip(span.pictures, span.features, strict=True):
            place = int(offset) + picture.start - span.start
            x_1TC[0, place : place + picture.stop - picture.start] = features.to(x_1TC)
    positions_31T = torch.cat([span.positions_3L for span in spans], dim=1)[:, None].to(first)
    hidden_1TC = decoder(x_1TC, positions_31T, _attend(decoder, spans), _Stores(spans))
    logits = model.lm_head(hidden_1TC[0, torch.from_numpy(offsets[1:] - 1).to(hidden_1TC.device)])
    for span in spans:  # last, so that a forward that fails can be done again
        span.store.advance(span.contents)
    return logits


class _Stores:
    """What the layers take for a cache: hands each span's part to its store."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = spans
        self.lengths = [len(span.ids) for span in spans]

    def update(self, key_1KTE: Tensor, value_1KTD: Tensor, layer: int) -> tuple[list[Tensor], list[Tensor]]:
        parts = zip(self.spans, key_1KTE.split(self.lengths, 2), value_1KTD.split(self.lengths, 2), strict=True)
        seen = [span.store.write(layer, span.start, key, value) for span, key, value in parts]
        return [key for key, _ in seen], [value for _, value in seen]


def _attend(decoder: NeoTextModel, spans: Sequence[Span]) -> Attend:
    scale = decoder.config.head_dim**-0.5
    lengths = [len(span.ids) for span in spans]

    @cache
    def attends_on(device: torch.device) -> list[Attend | None]:
        return [None if len(span.ids) == 1 else decoder.attention_over(_mask(span, device)) for span in spans]

    def attend(query_1HTE: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
        parts = zip(attends_on(query_1HTE.device), query_1HTE.split(lengths, 2), keys, values, strict=True)
        outs = [
            attend_one(query, key, value, scale)
            if attend is None
            else attend(query.to(key.dtype), key, value).to(query.dtype)  # the cache may be finer than the model
            for attend, query, key, value in parts
        ]
        return torch.cat(outs, dim=2) if len(outs) > 1 else outs[0]

    return attend  # type: ignore[return-value]


def _mask(span: Span, device: torch.device) -> AttentionMask:
    image_ids = torch.full((1, len(span.ids)), TEXT)
    for number, picture in enumerate(span.pictures):
        image_ids[0, picture.start - span.start : picture.stop - span.start] = number
    image_ids = F.pad(image_ids, (span.start, 0), value=TEXT).to(device)
    return AttentionMask(torch.zeros_like(image_ids), image_ids, query_start=span.start)
