"""The backends agree on any mask, with and without a cache; a large picture needs no L x L tensor."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from neo.model import attention, linear
from neo.model.attention import SEGMENT_COST, attend_one, attention_over, eager
from neo.model.config import PADDING, NeoTextConfig, preset
from neo.model.masks import AttentionMask
from neo.model.neo import NeoLayer
from neo.model.positions import TEXT
from neo.model.rope import native_rotary


def packed_mask(query_start: int) -> AttentionMask:
    """Padding, a document with a picture, and on the second row two documents with a picture each."""
    documents = torch.tensor([[PADDING] * 4 + [0] * 20, [0] * 10 + [1] * 12 + [PADDING] * 2])
    images = torch.full((2, 24), TEXT)
    images[0, 8:14], images[1, 2:6], images[1, 12:20] = 0, 1, 2
    return AttentionMask(documents, images, query_start)


@pytest.mark.parametrize("query_start", [0, 8, 23], ids=["whole", "continued", "one token"])
@pytest.mark.parametrize(("backend", "cost"), [("sdpa", float("inf")), ("sdpa", 0), ("flex_attention", None)])
def test_backends_agree(backend: str, cost: float | None, query_start: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if cost is not None:
        monkeypatch.setattr(attention, "SEGMENT_COST", cost)
    torch.manual_seed(0)
    mask = packed_mask(query_start)
    query, key = torch.randn(2, 4, 24 - query_start, 16), torch.randn(2, 2, 24, 16)
    value = torch.randn(2, 2, 24, 8)
    expected = attention_over(mask, 0.3, "eager")(query, key, value)
    ours = attention_over(mask, 0.3, backend)(query, key, value)
    real = (mask.document_ids[:, query_start:] != PADDING)[:, None, :, None]
    assert ours.shape == (2, 4, 24 - query_start, 8)
    torch.testing.assert_close(ours * real, expected * real, atol=2e-6, rtol=0)  # measured: 7.2e-7


def test_continued_words_go_through_the_mask_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "SEGMENT_COST", 0)
    monkeypatch.setattr(attention, "MASK_ROWS", 5)
    torch.manual_seed(0)
    mask = packed_mask(8)
    query, key, value = torch.randn(2, 2, 16, 8), torch.randn(2, 2, 24, 8), torch.randn(2, 2, 24, 4)
    expected = attention_over(mask, 0.3, "eager")(query, key, value)
    real = (mask.document_ids[:, 8:] != PADDING)[:, None, :, None]
    ours = attention_over(mask, 0.3, "sdpa")(query, key, value)
    torch.testing.assert_close(ours * real, expected * real, atol=2e-6, rtol=0)


@pytest.mark.parametrize("multiplies_bf16", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_one_new_token(
    dtype: torch.dtype, bound: float, multiplies_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "multiplies_bf16", lambda: multiplies_bf16)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, n, width) for heads, n, width in ((4, 1, 16), (2, 24, 16), (2, 24, 8)))
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    ours = attend_one(query, key, value, 0.3)
    assert ours.dtype == dtype
    expected = eager(query.double(), key.double(), value.double(), None, 0.3)
    # Measured: 2.3e-7, and in bf16 1.6e-3 with products in float32, 4.2e-3 without.
    torch.testing.assert_close(ours.double(), expected, atol=bound, rtol=0)


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="unknown attn_implementation 'flash': choose one of eager, sdpa"):
        attention_over(packed_mask(0), 1.0, "flash")


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@torch.inference_mode()
def test_a_large_picture_needs_no_square_tensor() -> None:
    """A 2048 x 2048 picture is 4096 tokens; a mask over them alone would have 16.8 million elements."""
    config = preset("2b").text_config
    assert isinstance(config, NeoTextConfig)
    with torch.device("meta"):
        layer = NeoLayer(config, 0)
    layer = layer.to(torch.bfloat16).to_empty(device="cpu")
    for parameter in layer.parameters():
        parameter.fill_(0.01)
    words, tokens = 24, 4096
    length = words + tokens + words
    images = torch.full((1, length), TEXT)
    images[:, words : words + tokens] = 0
    mask = AttentionMask(torch.zeros(1, length, dtype=torch.long), images)
    assert mask.prefers_segments(SEGMENT_COST)
    positions = torch.zeros(3, 1, length, dtype=torch.long)
    x = torch.ones(1, length, config.hidden_size, dtype=torch.bfloat16)
    with LargestTensor() as largest:
        rotary = native_rotary(positions, config.head_dim, 1e6, 1e4, torch.bfloat16)
        attend = attention_over(mask, config.head_dim**-0.5, "sdpa")
        layer(x, rotary, attend, None)
    # The widest thing is the MLP: (L, 6144), and float32 copies inside the norms have (L, 4096) elements.
    assert largest.elements <= length * config.intermediate_size
