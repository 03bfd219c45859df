"""The native primitive's attention, and the ways to compute it.

Queries and keys are [T | H | W], 2 * head_dim wide; values are head_dim wide. The three backends compute the same:

- `eager`: scores, mask and softmax written out; the definition.
- `sdpa` (the default): PyTorch's fused kernels. Over the mask's segments, which need no mask tensor at all, or over a
  dense boolean mask where the segments are so short that calling the kernel for each would cost more.
- `flex_attention`: FlexAttention over a block mask; compiled on a GPU.

Fused kernels want values as wide as keys: `padded_sdpa` fills them with zeros, which is exact and on CPU
several times faster than the unfused path (benchmarks/attention.py).

Shapes: B batch, H query heads, K key heads, L tokens, D head_dim, E = 2 * head_dim.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from neo.model.linear import fastest_dtype
from neo.model.masks import AttentionMask, Segment

BACKENDS = ("eager", "sdpa", "flex_attention")
"""What `attn_implementation` may be."""
MASK_ROWS = 256
"""Queries per mask block where a run of words continues a prefix: bounds the mask to MASK_ROWS x L_k booleans."""
SEGMENT_COST = 40_000
"""What calling the kernel once costs, in query-key pairs: an estimate, which benchmarks/attention.py can check."""


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(B, H, L_q, E) queries, (B, K, L_k, E) keys and (B, K, L_k, D) values to (B, H, L_q, D)."""


def attention_over(mask: AttentionMask, scale: float, backend: str) -> Attend:
    """The attention of one forward: mask, scale and backend are settled here, once for all layers.

    Raises:
        ValueError: the backend is unknown.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown attn_implementation {backend!r}: choose one of {', '.join(BACKENDS)}")
    if backend == "eager":
        return partial(eager, visible=mask.dense, scale=scale)
    if backend == "flex_attention" and mask.query_length > 1:  # one new token leaves nothing to skip
        return partial(flex, block_mask=mask.block, scale=scale)
    if mask.prefers_segments(SEGMENT_COST):
        return partial(sdpa_by_segments, rows=mask.segments, query_start=mask.query_start, scale=scale)
    return partial(padded_sdpa, visible=mask.dense, scale=scale)


def eager(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, scale: float) -> Tensor:
    """The definition; softmax in float32."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query @ key.transpose(-1, -2)).float() * scale
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    return scores.softmax(-1).to(value.dtype) @ value


def padded_sdpa(
    query: Tensor, key: Tensor, value: Tensor, scale: float, visible: Tensor | None = None, causal: bool = False
) -> Tensor:
    """PyTorch's fused attention with values padded to the width of the keys, the padding sliced off again."""
    width = value.shape[-1]
    value = F.pad(value, (0, key.shape[-1] - width))
    grouped = query.shape[1] != key.shape[1]
    out = F.scaled_dot_product_attention(query, key, value, visible, is_causal=causal, scale=scale, enable_gqa=grouped)
    return out[..., :width]


def attend_one(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """One new token that sees all keys: (B, H, 1, E) queries; two products, nothing padded.

    Queries that share a key head are the rows of one product. Softmax in float32, and so are the products where the
    processor has none of bf16: up to 4 times faster there.
    """
    dtype = fastest_dtype(query.device, query.dtype)
    keys, values = key.flatten(0, 1).to(dtype), value.flatten(0, 1).to(dtype)
    grouped = query.to(dtype).reshape(len(keys), -1, query.shape[-1])
    weights = torch.bmm(grouped, keys.transpose(1, 2)).float().mul_(scale).softmax(-1)
    return torch.bmm(weights.to(dtype), values).to(query.dtype).reshape(*query.shape[:-1], value.shape[-1])


@torch.compiler.disable  # every batch has other runs, and a compiler would take each for a new program
def sdpa_by_segments(
    query: Tensor, key: Tensor, value: Tensor, rows: list[list[Segment]], query_start: int, scale: float
) -> Tensor:
    """Fused attention run by run, with no mask: see `AttentionMask.segments`."""
    # Padding is in no segment: its rows stay zero.
    out = query.new_zeros(*query.shape[:-1], value.shape[-1])
    for row, segments in enumerate(rows):
        q, k, v = query[row : row + 1], key[row : row + 1], value[row : row + 1]
        for segment in segments:
            queries = slice(segment.start - query_start, segment.stop - query_start)
            out[row : row + 1, :, queries] = _segment(q[:, :, queries], k, v, segment, scale)
    return out


def _segment(query: Tensor, key: Tensor, value: Tensor, segment: Segment, scale: float) -> Tensor:
    first, start, stop = segment.first_key, segment.start, segment.stop
    if not segment.causal or stop - start == 1:
        return padded_sdpa(query, key[:, :, first:stop], value[:, :, first:stop], scale)
    if start == first:
        return padded_sdpa(query, key[:, :, first:stop], value[:, :, first:stop], scale, causal=True)
    pieces = []
    for begin in range(start, stop, MASK_ROWS):
        end = min(begin + MASK_ROWS, stop)
        causal = torch.ones(end - begin, end - first, dtype=torch.bool, device=query.device).tril(begin - first)
        q = query[:, :, begin - start : end - start]
        pieces.append(padded_sdpa(q, key[:, :, first:end], value[:, :, first:end], scale, causal))
    return torch.cat(pieces, dim=2)


@cache
def _flex(device_type: str) -> Callable[..., Tensor]:
    # Unfused on CPU, where it serves to check the block mask; compiled on a GPU, where it is fast.
    if device_type == "cuda":
        return torch.compile(flex_attention)
    return flex_attention


def flex(query: Tensor, key: Tensor, value: Tensor, block_mask: BlockMask, scale: float) -> Tensor:
    """FlexAttention over the block mask.

    Raises:
        ValueError: gradients are wanted on CPU, where PyTorch has no backward for it.
    """
    if query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
        raise ValueError("attn_implementation 'flex_attention' cannot train on CPU: use 'sdpa' there")
    attention = _flex(query.device.type)
    return attention(query, key, value, block_mask=block_mask, scale=scale, enable_gqa=True)
