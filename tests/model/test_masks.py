"""The three forms of the mask say the same as the rule written out in plain Python."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from neo.model.config import PADDING
from neo.model.masks import AttentionMask
from neo.model.positions import TEXT

Run = tuple[str, int]


@st.composite
def masks(draw: st.DrawFn) -> AttentionMask:
    """Rows of padding, documents of words and pictures, padding; any length of cache."""
    runs = st.lists(st.tuples(st.sampled_from(["text", "image", "document"]), st.integers(1, 6)), max_size=8)
    rows = draw(st.lists(st.tuples(st.integers(0, 4), runs, st.integers(0, 4)), min_size=1, max_size=3))
    longest = max(left + sum(length for _, length in row) + right for left, row, right in rows)
    length = max(longest, 1)
    documents = torch.full((len(rows), length), PADDING)
    images = torch.full((len(rows), length), TEXT)
    image = 0
    for row, (left, parts, _) in enumerate(rows):
        place, document = left, 0
        for kind, count in parts:
            if kind == "document":
                document += 1
            if kind == "image":
                images[row, place : place + count] = image
                image += 1
            documents[row, place : place + count] = document
            place += count
    # A cache never ends inside a picture: pictures are prefilled whole.
    cuts = [i for i in range(length) if i == 0 or not _torn(images, i)]
    return AttentionMask(documents, images, query_start=draw(st.sampled_from(cuts)))


def _torn(images: Tensor, place: int) -> bool:
    return bool(((images[:, place] == images[:, place - 1]) & (images[:, place] != TEXT)).any())


def by_definition(mask: AttentionMask) -> Tensor:
    """(B, L_q, L_k) by the rule of ARCHITECTURE: same document, and not later or the same picture."""
    documents, images = mask.document_ids.tolist(), mask.image_ids.tolist()
    length = mask.key_length
    return torch.tensor(
        [
            [
                [
                    documents[b][q] == documents[b][k]
                    and (k <= q or (images[b][q] == images[b][k] and images[b][q] != TEXT))
                    for k in range(length)
                ]
                for q in range(mask.query_start, length)
            ]
            for b in range(len(documents))
        ]
    )


@given(masks())
@settings(max_examples=150, deadline=None)
def test_dense_is_the_rule(mask: AttentionMask) -> None:
    dense = by_definition(mask) if mask.dense is None else mask.dense[:, 0]
    assert dense.equal(by_definition(mask))
    if mask.dense is None:
        assert by_definition(mask).all()


@given(masks())
@settings(max_examples=150, deadline=None)
def test_segments_expand_to_the_rule(mask: AttentionMask) -> None:
    expanded = torch.zeros_like(by_definition(mask))
    for row, segments in enumerate(mask.segments):
        for segment in segments:
            for query in range(segment.start, segment.stop):
                stop = query + 1 if segment.causal else segment.stop
                expanded[row, query - mask.query_start, segment.first_key : stop] = True
    # Padding is in no segment; whoever stands there sees nothing and nobody looks.
    real = mask.document_ids[:, mask.query_start :] != PADDING
    assert expanded.equal(by_definition(mask) & real[..., None])


@given(masks())
@settings(max_examples=25, deadline=None)
def test_block_mask_materialises_to_the_rule(mask: AttentionMask) -> None:
    block = mask.block
    batch, queries, keys = by_definition(mask).shape
    b, q, k = torch.arange(batch), torch.arange(queries), torch.arange(keys)
    rule = block.mask_mod(b[:, None, None], torch.tensor(0), q[:, None], k)
    assert rule.equal(by_definition(mask))
    # A block that the block mask leaves out holds nothing visible.
    kept = block.to_dense()[:, 0].repeat_interleave(block.BLOCK_SIZE[0], 1)[:, :queries]
    kept = kept.repeat_interleave(block.BLOCK_SIZE[1], 2)[:, :, :keys].bool()
    assert not (by_definition(mask) & ~kept).any()


def test_block_mask_leaves_out_what_nobody_sees() -> None:
    documents = torch.arange(2).repeat_interleave(256)[None]
    block = AttentionMask(documents, torch.full_like(documents, TEXT)).block
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert block.to_dense()[0, 0].tolist() == expected


def test_one_new_word_after_a_cache_needs_no_mask() -> None:
    mask = AttentionMask(torch.zeros(2, 9), torch.full((2, 9), TEXT), query_start=8)
    assert mask.dense is None


@pytest.mark.parametrize(("cost", "expected"), [(0, True), (10**9, False)])
def test_many_short_segments_are_left_to_one_dense_call(cost: int, expected: bool) -> None:
    mask = AttentionMask(torch.zeros(1, 512), torch.full((1, 512), TEXT).scatter(1, torch.arange(9, 99)[None], 0))
    assert mask.prefers_segments(cost) is expected
