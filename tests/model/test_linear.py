import pytest
import torch
from torch.nn import functional as F

from neo.model import linear
from neo.model.linear import FEW_ROWS, FLOAT_ROWS, Linear


@pytest.mark.parametrize("multiplies_bf16", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1,), (1, 1), (3, 1), (2, 5), (FEW_ROWS,), (FEW_ROWS + 1,), (FLOAT_ROWS - 1,), (0,)])
def test_every_number_of_rows_gives_the_same_product(
    shape: tuple[int, ...], dtype: torch.dtype, multiplies_bf16: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(linear, "multiplies_bf16", lambda: multiplies_bf16)
    monkeypatch.setattr(linear, "CHUNK", 48 * 7)  # several parts, the last smaller
    generator = torch.Generator().manual_seed(0)
    layer = Linear(48, 20).to(dtype)
    x = torch.randn(*shape, 48, generator=generator).to(dtype)
    with torch.no_grad():
        out = layer(x)
    assert out.shape == (*shape, 20)
    # Sums of 48 products, each rounded once at the end: at most the last of 8 bits of the mantissa differs.
    torch.testing.assert_close(out, F.linear(x, layer.weight), atol=1e-2 if dtype == torch.bfloat16 else 1e-6, rtol=0)


def test_gradients_in_bf16():
    layer = Linear(8, 4).to(torch.bfloat16)
    layer(torch.ones(1, 8, dtype=torch.bfloat16)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[1.0] * 8] * 4
