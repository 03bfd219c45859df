import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from neo.model import linear
from neo.model.linear import FEW_ROWS, FLOAT_ROWS, Linear, join, products


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


def several() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList([Linear(32, 16), Linear(32, 48), Linear(32, 8)])


def is_one(layers: nn.ModuleList) -> bool:
    """Whether they are multiplied in one product."""
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "_product", lambda x, weight: calls.append(weight) or F.linear(x, weight))
        products(torch.ones(1, 32, dtype=layers[0].weight.dtype), layers)
    assert len(calls) in (1, 3)
    return len(calls) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1,), (1, 1), (2, 5), (200,)])
def test_joined_layers_give_what_they_give_alone(shape: tuple[int, ...], dtype: torch.dtype):
    layers = several().to(dtype)
    before = {name: weight.clone() for name, weight in layers.state_dict().items()}
    x = torch.randn(*shape, 32).to(dtype)
    with torch.no_grad():
        alone = [layer(x) for layer in layers]
        assert not is_one(layers)
        join(layers)
        assert is_one(layers)
        together = products(x, layers)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-2 if dtype == torch.bfloat16 else 1e-6, rtol=0)
    for name, weight in layers.state_dict().items():
        assert torch.equal(weight, before[name])


@torch.no_grad()
def test_layers_are_called_where_that_does_more_than_multiply():
    layers = several()
    join(layers)
    for hook in (layers[1].register_forward_hook, layers[1].register_forward_pre_hook):
        handle = hook(lambda *_: None)
        assert not is_one(layers)
        handle.remove()
    with torch.enable_grad():
        assert not is_one(layers)
    assert is_one(layers)
    for copied in (copy.deepcopy(layers), layers.to(torch.float64)):
        assert not is_one(copied)  # each weight was made anew
    other = nn.ModuleList([nn.Linear(32, 16, bias=False), Linear(32, 8)])
    join(other)
    assert other[0].weight.storage_offset() == other[1].weight.storage_offset() == 0


@torch.no_grad()
def test_a_joined_weight_can_be_replaced():
    layers = several()
    join(layers)
    layers[1].weight = nn.Parameter(torch.zeros(48, 32))
    assert not is_one(layers)
    assert [part.any().item() for part in products(torch.ones(1, 32), layers)] == [True, False, True]
