"""Weights in 8 or 4 bits: less memory, and less to read for each token, which is what decoding on CPU costs.

int8: the weights of an output channel are whole numbers from -127 to 127 times one scale.
int4: 32 weights of a channel that lie together are `(q - 8) * scale + zero` with q from 0 to 15. Embedding and head are
int8, and so are matrices of sizes that torch's kernel does not take.

Activations stay as they are. Every product has several ways, of which the number of rows (tokens) decides; the numbers
are measured by benchmarks/quantization.py.

Shapes: R rows, K inputs, N outputs, G groups of 32 inputs.
"""

import logging
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor, nn

from neo.model.linear import Linear, fastest_dtype
from neo.model.neo import NeoForConditionalGeneration

logger = logging.getLogger(__name__)

QUANTIZATIONS = ("int8", "int4")
PARTS = ("weight", "scale", "zero")
"""What is saved of a quantised weight; int8 has no zero."""
GROUP = 32
"""Weights that share a scale and a zero in int4."""
BLOCK = 64
"""Outputs that int4 weights come in multiples of."""
KERNEL_ROWS = {"integer": 2, "plain": 12, "int4": 64}
"""Most rows that aten's kernels are the fastest for: int8 beside `by_integers` and without it, and int4."""
KERNEL_INPUTS = 16
"""Inputs that aten's int8 kernel takes multiples of."""
INTEGER_ROWS = 96
"""Most rows that `by_integers` is the fastest for."""
ALIGNMENT = 64
"""Bytes that memory comes in; a fifth is lost in reading weights that lie across (benchmarks/quantization.py)."""
CHUNK = 2**20
"""Weights that are made into floating-point numbers at a time."""


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where it does not begin at a multiple of `ALIGNMENT`."""
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


class Int8Linear(nn.Module):
    """(..., K) to (..., N) by int8 weights."""

    weight: Tensor
    scale: Tensor
    in_features: int
    out_features: int

    def __init__(self, weight_NK: Tensor, scale_N: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight_NK)
        self.register_buffer("scale", scale_N)
        self.out_features, self.in_features = weight_NK.shape

    @classmethod
    @torch.no_grad()
    def of(cls, weight_NK: Tensor, dtype: torch.dtype) -> Self:
        """The nearest to a weight; `dtype` is that of the activations."""
        whole_NK = torch.empty(weight_NK.shape, dtype=torch.int8)
        scale_N = torch.empty(len(weight_NK), dtype=dtype)
        rows = max(1, CHUNK // weight_NK.shape[1])
        for source, whole, scale in zip(*(one.split(rows) for one in (weight_NK, whole_NK, scale_N)), strict=True):
            source = source.float()
            steps = (source.abs().amax(1) / 127).to(dtype)
            scale.copy_(steps.where(steps > 0, 1))
            whole.copy_((source / scale.float()[:, None]).round_().clamp_(-127, 127))
        return cls(whole_NK, scale_N)

    def dequantized(self) -> Tensor:
        """(N, K) in float32."""
        return self.weight.float() * self.scale.float()[:, None]

    def stored(self) -> dict[str, Tensor]:
        """What is saved of it."""
        return {"weight": self.weight, "scale": self.scale}

    def forward(self, x: Tensor) -> Tensor:
        x_RK = x.reshape(-1, self.in_features)
        on_cpu = x.device.type == "cpu"
        integer = x.dtype.itemsize == 2 and _multiplies_integers()  # finer than 16 bits, but not than float32
        kernel = 0 < len(x_RK) <= KERNEL_ROWS["integer" if integer else "plain"]
        if on_cpu and kernel and self.in_features % KERNEL_INPUTS == 0:
            out_RN = self.by_kernel(x_RK)
        elif on_cpu and integer and len(x_RK) <= INTEGER_ROWS:
            out_RN = self.by_integers(x_RK)
        else:
            out_RN = self.by_conversion(x_RK)
        return out_RN.reshape(*x.shape[:-1], self.out_features)

    def by_kernel(self, x_RK: Tensor) -> Tensor:
        """aten's kernel: reads each weight once, but computes with floating-point numbers row by row.

        In bf16 it crashes, or is wrong, where rows do not begin at its registers' multiples; found by trying.
        """
        return torch._weight_int8pack_mm(aligned(x_RK.contiguous()), aligned(self.weight), self.scale)

    def by_integers(self, x_RK: Tensor) -> Tensor:
        """Products of int8 with int8, each row rounded to 2 * 16319 steps, finer than bf16 but for small ones.

        A step is 128 * high + low with both in int8, two rows for one, and the weights are read once for all.
        """
        step_R1 = x_RK.abs().amax(1, keepdim=True).float() / 16319
        steps_RK = (x_RK / step_R1.where(step_R1 > 0, 1)).round_()
        high_RK = (steps_RK / 128).round_()
        both = torch.cat([high_RK, steps_RK.sub_(high_RK, alpha=128)]).to(torch.int8)
        high_RN, low_RN = torch._int_mm(both, self.weight.t()).chunk(2)
        return low_RN.float().add_(high_RN, alpha=128).mul_(step_R1).mul_(self.scale).to(x_RK.dtype)

    def by_conversion(self, x_RK: Tensor) -> Tensor:
        """The weights made into floating-point numbers, some at a time, which pays for many rows."""
        out_RN = x_RK.new_empty(len(x_RK), self.out_features)
        # What fits into a processor's cache; a GPU would wait for the launches.
        columns = max(1, CHUNK // self.in_features) if x_RK.device.type == "cpu" else self.out_features
        parts = (self.weight.split(columns), self.scale.split(columns), out_RN.split(columns, 1))
        x_RK = x_RK.to(fastest_dtype(x_RK.device, x_RK.dtype))
        for weight_nK, scale_n, out_Rn in zip(*parts, strict=True):
            if x_RK.dtype == torch.float16:  # unscaled sums would be too large for it
                out_Rn.copy_(x_RK @ (weight_nK * scale_n[:, None]).t())
            else:
                out_Rn.copy_((x_RK @ weight_nK.to(x_RK.dtype).t()).mul_(scale_n))
        return out_RN


class Int8Embedding(nn.Module):
    """Token ids to vectors by int8 weights; a tied head is its `table`."""

    def __init__(self, table: Int8Linear) -> None:
        super().__init__()
        self.table = table

    def forward(self, ids: Tensor) -> Tensor:
        weight, scale = self.table.weight, self.table.scale
        return weight[ids].to(scale.dtype) * scale[ids][..., None]


class Int4Linear(nn.Module):
    """(..., K) to (..., N) by int4 weights, two to a byte as aten's kernel reads them on this machine."""

    packed: Tensor
    scales_zeros: Tensor
    in_features: int
    out_features: int

    def __init__(self, packed: Tensor, scales_zeros_GN2: Tensor) -> None:
        super().__init__()
        self.register_buffer("packed", packed)
        self.register_buffer("scales_zeros", scales_zeros_GN2)
        self.out_features, self.in_features = len(packed), 2 * packed.shape[1]

    @staticmethod
    def takes(weight_NK: Tensor) -> bool:
        """Whether a weight has the sizes for it."""
        return weight_NK.shape[0] % BLOCK == 0 and weight_NK.shape[1] % GROUP == 0

    @classmethod
    @torch.no_grad()
    def of(cls, weight_NK: Tensor, dtype: torch.dtype) -> Self:
        """The nearest to a weight, each group from its least to its greatest; `dtype` is that of the activations."""
        made = []
        for source in weight_NK.split(_columns(weight_NK.shape[1])):
            groups = source.float().unflatten(1, (-1, GROUP))
            least, greatest = groups.amin(2).clamp_(max=0), groups.amax(2).clamp_(min=0)
            steps = ((greatest - least) / 15).to(dtype)
            scale_NG = steps.where(steps > 0, 1).float()
            zero_NG = (least + 8 * scale_NG).to(dtype).float()
            q_NK = ((groups - zero_NG[..., None]) / scale_NG[..., None] + 8).round_().clamp_(0, 15).flatten(1)
            made.append(_packed(q_NK.to(torch.uint8), scale_NG, zero_NG, dtype))
        return cls(torch.cat([packed for packed, _ in made]), torch.cat([scales for _, scales in made], 1))

    @classmethod
    def restored(cls, weight: Tensor, scale: Tensor, zero: Tensor) -> Self:
        """The same again from what is `stored` of it."""
        made = []
        columns = _columns(2 * weight.shape[1])
        for pairs, scale_NG, zero_NG in zip(*(one.split(columns) for one in (weight, scale, zero)), strict=True):
            q_NK = torch.stack([pairs & 15, pairs >> 4], -1).flatten(1)
            made.append(_packed(q_NK, scale_NG, zero_NG, scale.dtype))
        return cls(torch.cat([packed for packed, _ in made]), torch.cat([scales for _, scales in made], 1))

    def stored(self) -> dict[str, Tensor]:
        """What is saved of it, the same on all machines: `weight` (N, K / 2) has an even input in a byte's low half."""
        weight = torch.empty_like(self.packed)
        columns = _columns(self.in_features)
        for packed, pairs in zip(self.packed.split(columns), weight.split(columns), strict=True):
            q_NK = _unpacked(packed, _half_block()).t()
            pairs.copy_(q_NK[:, ::2] | q_NK[:, 1::2] << 4)
        scale_NG, zero_NG = (one.t().contiguous() for one in self.scales_zeros.unbind(-1))
        return {"weight": weight, "scale": scale_NG, "zero": zero_NG}

    def dequantized(self) -> Tensor:
        """(N, K) in float32."""
        scale_NG, zero_NG = (one.t().float().repeat_interleave(GROUP, 1) for one in self.scales_zeros.unbind(-1))
        return (_unpacked(self.packed, _half_block()).t().float() - 8) * scale_NG + zero_NG

    def forward(self, x: Tensor) -> Tensor:
        x_RK = x.reshape(-1, self.in_features)
        out_RN = self.by_kernel(x_RK) if 0 < len(x_RK) <= KERNEL_ROWS["int4"] else self.by_conversion(x_RK)
        return out_RN.reshape(*x.shape[:-1], self.out_features)

    def by_kernel(self, x_RK: Tensor) -> Tensor:
        """aten's kernel: reads each weight once, but computes row by row."""
        product = torch.ops.aten._weight_int4pack_mm_for_cpu
        return product(x_RK.contiguous(), self.packed, GROUP, self.scales_zeros)

    def by_conversion(self, x_RK: Tensor) -> Tensor:
        """The weights made into floating-point numbers, some at a time, which pays for many rows."""
        out_RN = x_RK.new_empty(len(x_RK), self.out_features)
        columns = _columns(self.in_features)
        parts = (self.packed.split(columns), self.scales_zeros.split(columns, 1), out_RN.split(columns, 1))
        x_RK = x_RK.to(fastest_dtype(x_RK.device, x_RK.dtype))
        for packed, scales_zeros, out_Rn in zip(*parts, strict=True):
            q_GgN = _unpacked(packed, _half_block()).unflatten(0, (-1, GROUP)).view(torch.int8).sub_(8)
            scale_G1N, zero_G1N = (one[:, None].to(x_RK.dtype).contiguous() for one in scales_zeros.unbind(-1))
            weight_Kn = torch.addcmul(zero_G1N, q_GgN.to(x_RK.dtype), scale_G1N).flatten(0, 1)
            out_Rn.copy_(x_RK @ weight_Kn)
        return out_RN


def check_quantization(quantization: str | None, device: torch.device) -> None:
    """Raise a ValueError where a quantisation is unknown or cannot be had on this machine."""
    if quantization not in (None, *QUANTIZATIONS):
        raise ValueError(f"quantization={quantization!r} must be one of {', '.join(QUANTIZATIONS)}, or None")
    if quantization == "int4" and device.type != "cpu":
        raise ValueError(f"quantization='int4' runs on cpu only, not on {device}: take int8 or give device='cpu'")
    if quantization == "int4" and not _half_block():
        raise ValueError("quantization='int4' is not to be had on this processor: take int8")


def quantize(model: NeoForConditionalGeneration, quantization: str, dtype: torch.dtype) -> None:
    """Quantise a model's decoder in place, one matrix after the other, so that two are never held in full.

    Args:
        model: on CPU; its patch embedding and norms stay as they are.
        quantization: "int8" or "int4".
        dtype: of the activations.
    """
    table = Int8Linear.of(model.get_input_embeddings().weight, dtype)  # type: ignore[arg-type]
    model.set_input_embeddings(Int8Embedding(table))
    if model.config.tie_word_embeddings:
        tie_head(model)
    for name in [name for name, module in model.named_modules() if isinstance(module, Linear)]:
        weight = model.get_submodule(name).weight
        fine = quantization == "int4" and name != "lm_head"
        if fine and not Int4Linear.takes(weight):  # type: ignore[arg-type]
            sizes = " x ".join(map(str, weight.shape))  # type: ignore[union-attr, arg-type]
            logger.info("%s is %s, which int4 does not take; it is int8", name, sizes)
            fine = False
        model.set_submodule(name, (Int4Linear if fine else Int8Linear).of(weight, dtype))  # type: ignore[arg-type]


def tie_head(model: NeoForConditionalGeneration) -> None:
    """Let the head use the embedding's weights."""
    embedding: Any = model.get_input_embeddings()
    if isinstance(embedding, Int8Embedding):
        model.lm_head = embedding.table  # type: ignore[assignment]
    else:
        model.lm_head.weight = embedding.weight


def stored_tensors(model: NeoForConditionalGeneration) -> dict[str, Tensor]:
    """All that is saved of a quantised model, by name; a tied head is the embedding."""
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    for name, module in model.named_modules():
        if isinstance(module, Int8Linear | Int4Linear):
            tensors |= {f"{name.removesuffix('.table')}.{part}": tensor for part, tensor in module.stored().items()}
    return tensors


def restored(tensors: dict[str, Tensor], shape: torch.Size, embedding: bool) -> nn.Module:
    """The layer, or embedding, of some shape from what was saved of it.

    Raises:
        ValueError: the tensors are not those of such a layer.
    """
    found = {part: (tensor.dtype.itemsize == 1, list(tensor.shape)) for part, tensor in tensors.items()}
    N, K = shape
    if found == {"weight": (True, [N, K]), "scale": (False, [N])}:
        layer = Int8Linear(tensors["weight"], tensors["scale"])
        return Int8Embedding(layer) if embedding else layer
    groups = (False, [N, K // GROUP])
    if found == {"weight": (True, [N, K // 2]), "scale": groups, "zero": groups} and not (N % BLOCK or embedding):
        return Int4Linear.restored(**tensors)
    raise ValueError(f"no quantised weight of {N} x {K}: {found}")


def quantization_of(model: nn.Module) -> str | None:
    """How a model is quantised, None where it is not."""
    kinds = {type(module) for module in model.modules()}
    return "int4" if Int4Linear in kinds else "int8" if Int8Linear in kinds else None


def weight_bytes(model: NeoForConditionalGeneration, dtype: torch.dtype, quantization: str | None = None) -> int:
    """Bytes that a model's weights take in some dtype and quantisation; the model may be on the meta device."""
    total = 0
    for name, parameter in model.named_parameters():
        module = model.get_submodule(name.rpartition(".")[0])
        if quantization is None or not isinstance(module, Linear | nn.Embedding):
            total += parameter.numel() * dtype.itemsize
        elif quantization == "int4" and _in_int4(module, parameter) and module is not model.lm_head:
            total += parameter.numel() // 2 + 2 * parameter.numel() // GROUP * dtype.itemsize
        else:
            total += parameter.numel() + len(parameter) * dtype.itemsize
    return total


def _in_int4(module: nn.Module, weight: Tensor) -> bool:
    return isinstance(module, Linear) and Int4Linear.takes(weight)


@cache
def _multiplies_integers() -> bool:
    """Whether this processor has instructions for products of int8."""
    return torch.cpu._is_vnni_supported()


def _columns(inputs: int) -> int:
    """Outputs of an int4 weight that are handled at a time."""
    return max(1, CHUNK // (BLOCK * inputs)) * BLOCK


def _packed(q_NK: Tensor, scale_NG: Tensor, zero_NG: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Int4 weights as aten's kernel takes them."""
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q_NK.int(), 2)
    return packed, torch.stack([scale_NG, zero_NG], -1).transpose(0, 1).to(dtype).contiguous()


def _unpacked(packed: Tensor, half: int) -> Tensor:
    """(K, N) uint8 of what aten packed: blocks of 2 * half outputs, a byte for every input and pair of outputs."""
    K = 2 * packed.shape[1]
    pairs_KBh = packed.view(-1, K, half).transpose(0, 1)
    return torch.cat([pairs_KBh & 15, pairs_KBh >> 4], -1).flatten(1)


@cache
def _half_block() -> int:
    """Half the outputs that are packed together, which the width of this processor's registers decides; 0: unknown."""
    q_NK = torch.arange(BLOCK * 2 * GROUP).mul(7).remainder(13).view(BLOCK, 2 * GROUP)
    try:
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q_NK.int(), 2)
    except (RuntimeError, AttributeError):
        return 0
    return next((half for half in (32, 16) if torch.equal(_unpacked(packed, half).t().long(), q_NK)), 0)
