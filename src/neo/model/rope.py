"""Native-RoPE: rotary positions for time, height and width.

Two conventions live in the published weights. In the decoder a head's first half is rotated against its second
(`rotate_half`). In the patch embedding neighbouring channels (0, 1), (2, 3), ... are rotated against each other.

Shapes: B batch, L tokens, D head_dim, N patches, C channels.
"""

import torch
from torch import Tensor

Rotary = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(cos, sin) of T, and of H and W side by side."""


def angles(positions: Tensor, dim: int, base: float) -> Tensor:
    """Angles position * base^(-2i/dim) of `dim / 2` rotating pairs: (*positions.shape, dim / 2) in float32."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim
    return positions[..., None].float() * (1.0 / base**exponents)


def native_rotary(positions_3BL: Tensor, head_dim: int, base_t: float, base_hw: float, dtype: torch.dtype) -> Rotary:
    """Cosines and sines for the three parts of a head, computed once per forward and shared by all layers.

    T turns over head_dim with base `base_t`; H and W over head_dim / 2 each with base `base_hw`.

    Returns:
        cos and sin in `dtype`, ready to broadcast over heads: of T (B, L, 1, head_dim / 2), of H and W
        (B, L, 1, 2, head_dim / 4).
    """
    t_BL, *hw = positions_3BL
    angle_t, angle_hw = angles(t_BL, head_dim, base_t), angles(torch.stack(hw, -1), head_dim // 2, base_hw)
    parts = angle_t[:, :, None], angle_hw[:, :, None]
    return tuple((part.cos().to(dtype), part.sin().to(dtype)) for part in parts)  # type: ignore[return-value]


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate the first half of the last dimension against the second; the two rotated halves."""
    first, second = x.chunk(2, dim=-1)
    return first * cos - second * sin, second * cos + first * sin


def rotate_patches(x_NC: Tensor, rows_N: Tensor, columns_N: Tensor, base: float) -> Tensor:
    """2-D rotary of the patch embedding: the first half of the channels turns with the column, the second with the row.

    Pairs are interleaved; computed in float32 and returned in the dtype of `x_NC`.
    """
    half = x_NC.shape[-1] // 2
    angle_NC = torch.cat([angles(columns_N, half, base), angles(rows_N, half, base)], dim=-1)
    even, odd = x_NC.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angle_NC.cos(), angle_NC.sin()
    return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2).to(x_NC.dtype)
