"""Rotations against float64, and what makes them positions: scores depend on differences alone."""

import torch
from torch import Tensor

from neo.model.rope import native_rotary, rotate_halves, rotate_patches


def half_split_float64(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Channel i turns with channel i + dim / 2 by position * base^(-2i / dim), as complex numbers."""
    dim = x.shape[-1]
    angle = positions.double()[:, None] * base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    turned = torch.complex(*x.double().chunk(2, dim=-1)) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], dim=-1)


def test_three_parts_turn_by_their_own_position_and_base() -> None:
    torch.manual_seed(0)
    positions = torch.randint(0, 4096, (3, 1, 40))
    (cos_t, sin_t), (cos_hw, sin_hw) = native_rotary(positions, 128, 1e6, 1e4, torch.float32)
    parts = [(cos_t, sin_t), *((cos_hw[..., axis, :], sin_hw[..., axis, :]) for axis in range(2))]
    for part, (cos, sin) in enumerate(parts):
        dim, base = (128, 1e6) if part == 0 else (64, 1e4)
        x = torch.randn(1, 40, 2, dim)
        ours = torch.cat(rotate_halves(x, cos, sin), dim=-1)
        for head in range(2):
            expected = half_split_float64(x[0, :, head], positions[part, 0], base)
            # measured: 4.6e-4 near position 4095: the angle is rounded to float32, as published
            torch.testing.assert_close(ours[0, :, head].double(), expected, atol=2e-3, rtol=0)


def test_scores_depend_on_differences_of_positions() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 64, dtype=torch.float64)

    def score(query_at: int, key_at: int) -> Tensor:
        rotary = native_rotary(torch.tensor([query_at, key_at]).expand(3, 1, 2), 64, 1e4, 1e4, torch.float64)
        cos, sin = rotary[0]
        turned = [torch.cat(rotate_halves(x, cos[0, i, 0], sin[0, i, 0]), -1) for i, x in enumerate((query, key))]
        return turned[0] @ turned[1]

    torch.testing.assert_close(score(9, 4), score(105, 100), atol=1e-4, rtol=0)  # angles are float32
    assert (score(9, 4) - score(9, 5)).abs() > 0.1


def test_words_are_not_turned_by_h_and_w() -> None:
    positions = torch.zeros(3, 1, 5, dtype=torch.long)
    for cos, sin in native_rotary(positions, 16, 1e6, 1e4, torch.float32):
        assert cos.eq(1).all()
        assert sin.eq(0).all()


def test_patches_turn_by_column_then_row_in_neighbouring_pairs() -> None:
    torch.manual_seed(0)
    x = torch.randn(12, 32)
    rows, columns = torch.arange(12) // 4, torch.arange(12) % 4

    def interleaved(part: Tensor, positions: Tensor) -> Tensor:
        angle = positions.double()[:, None] * 1e4 ** (-torch.arange(0, 16, 2, dtype=torch.float64) / 16)
        turned = torch.view_as_complex(part.double().unflatten(-1, (-1, 2))) * torch.polar(
            torch.ones_like(angle), angle
        )
        return torch.view_as_real(turned).flatten(-2)

    expected = torch.cat([interleaved(x[:, :16], columns), interleaved(x[:, 16:], rows)], dim=-1)
    ours = rotate_patches(x, rows, columns, 1e4)
    torch.testing.assert_close(ours.double(), expected, atol=2e-6, rtol=0)


def test_patches_are_rotated_in_float32_and_cast_back() -> None:
    x = torch.randn(6, 16, dtype=torch.bfloat16)
    rows, columns = torch.arange(6), torch.arange(6)
    ours = rotate_patches(x, rows, columns, 1e4)
    assert ours.dtype == torch.bfloat16
    assert ours.equal(rotate_patches(x.float(), rows, columns, 1e4).bfloat16())
