"""A linear layer that knows the fastest product on this CPU, and several such layers as one product.

For few tokens reading the weight is all the cost; for many, a processor without bf16 instructions is several times
faster in float32. Measured in docs/experiments.md.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW_ROWS = 64
"""Most rows that `weight @ rows.T` is the fastest for, where the processor multiplies bf16."""
FLOAT_ROWS = 24
"""Fewest rows that a weight is made into float32 for, where it does not."""
SOME_ROWS = range(8, 49)
"""Rows of float32 that `weight @ rows.T` is the fastest for."""
CHUNK = 2**20
"""Weights that are made into float32 at a time."""


class Linear(nn.Linear):
    """`nn.Linear` without bias: (..., in) to (..., out). All its products round alike."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return _product(x, self.weight)


def join(layers: Sequence[nn.Module]) -> None:
    """Put the weights of layers that take the same inputs into one memory, of which each weight is then a part.

    Nothing else about the layers changes. Others than `Linear`, such as quantised ones, are left alone.
    """
    if all(type(layer) is Linear for layer in layers):
        weights: list[Any] = [layer.weight for layer in layers]
        joined = torch.cat([weight.data for weight in weights])
        for weight, part in zip(weights, joined.split([len(weight) for weight in weights]), strict=True):
            weight.data = part


def products(x: Tensor, layers: Sequence[nn.Module]) -> Sequence[Tensor]:
    """What each of several layers makes of the same inputs: one product in inference where `join` was called."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or (joined := _joined(layers)) is None:
        return [layer(x) for layer in layers]
    return _product(x, joined).split([layer.out_features for layer in layers], -1)  # type: ignore[misc]


def _joined(layers: Sequence[nn.Module]) -> Tensor | None:
    """The weights of layers as one, if they lie one after the other and calling the layers would do nothing else."""
    if any(type(layer) is not Linear or layer._forward_hooks or layer._forward_pre_hooks for layer in layers):
        return None
    first: Any = layers[0].weight
    end = first.storage_offset()
    for layer in layers:
        weight: Any = layer.weight
        if weight.storage_offset() != end or not _same_memory(weight, first):
            return None
        end += weight.numel()
    return first.as_strided(((end - first.storage_offset()) // first.shape[1], first.shape[1]), first.stride())


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _product(x: Tensor, weight_OC: Tensor) -> Tensor:
    """(..., C) times (O, C)."""
    others = x.device.type != "cpu" or x.dtype not in _PRODUCTS
    if others or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return F.linear(x, weight_OC)
    product = _PRODUCTS[x.dtype]
    return product(x.reshape(-1, x.shape[-1]), weight_OC).reshape(*x.shape[:-1], len(weight_OC))


def _product_fp32(x_RC: Tensor, weight_OC: Tensor) -> Tensor:
    """(R, C) times (O, C), both float32 on CPU."""
    if len(x_RC) in SOME_ROWS:
        return (weight_OC @ x_RC.t()).t()
    return F.linear(x_RC, weight_OC)


def _product_bf16(x_RC: Tensor, weight_OC: Tensor) -> Tensor:
    """(R, C) times (O, C), both bf16 on CPU."""
    rows = len(x_RC)
    if rows == 1:
        return torch.mv(weight_OC, x_RC[0])
    if multiplies_bf16():
        return (weight_OC @ x_RC.t()).t() if rows <= FEW_ROWS else F.linear(x_RC, weight_OC)
    if rows < FLOAT_ROWS:
        return F.linear(x_RC, weight_OC)
    out_RO, wide_RC = x_RC.new_empty(rows, len(weight_OC)), x_RC.float()
    columns = max(1, CHUNK // weight_OC.shape[1])
    for weight_oC, out_Ro in zip(weight_OC.split(columns), out_RO.split(columns, 1), strict=True):
        out_Ro.copy_(wide_RC @ weight_oC.float().t())
    return out_RO


_PRODUCTS = {torch.float32: _product_fp32, torch.bfloat16: _product_bf16}


def fastest_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a device multiplies many numbers of `dtype` the fastest, at least as fine as it."""
    slow = device.type == "cpu" and dtype == torch.bfloat16 and not multiplies_bf16()
    return torch.float32 if slow else dtype


@cache
def multiplies_bf16() -> bool:
    """Whether this processor has instructions for products of bf16 (avx512_bf16, amx_bf16 and such)."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases of torch do not tell
    return any(found and str(name).endswith("bf16") for name, found in capabilities.items())
