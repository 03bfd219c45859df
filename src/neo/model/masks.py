"""Who sees whom: one predicate, and the forms that attention backends want it in.

A token sees a token of the same document that does not come later, or that belongs to the same picture. So a picture
is bidirectional inside and causal towards everything else. Padding is a document of its own.

Shapes: B batch, L_q queries, L_k keys; the queries are the last L_q of the keys, which is how a cache continues.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from neo.model.config import PADDING
from neo.model.positions import TEXT


def visibility(document_ids: Tensor, image_ids: Tensor, query_start: int) -> Callable[..., Tensor]:
    """THE predicate, as a function of batch, head, query and key index (tensors that broadcast).

    Args:
        document_ids: (B, L_k).
        image_ids: (B, L_k).
        query_start: index of the first query among the keys.
    """

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        query = query + query_start
        same_document = document_ids[batch, query] == document_ids[batch, key]
        same_image = (image_ids[batch, query] == image_ids[batch, key]) & (image_ids[batch, query] != TEXT)
        return same_document & ((key <= query) | same_image)

    return sees


@cache
def _make_block_mask(device_type: str) -> Callable[..., BlockMask]:
    # Uncompiled it would first hold the mask of every single pair: at 16 384 tokens gigabytes.
    return torch.compile(create_block_mask) if device_type == "cuda" else create_block_mask


@dataclass(frozen=True)
class Segment:
    """A run of queries that needs no mask: all of `first_key:stop` (a picture), or that causally (words)."""

    start: int
    stop: int
    first_key: int
    causal: bool


@dataclass(frozen=True)
class AttentionMask:
    """The mask of one forward; each form is made when first asked for and shared by all layers."""

    document_ids: Tensor
    """(B, L_k): `PADDING` where nothing stands."""
    image_ids: Tensor
    """(B, L_k): `TEXT` for words."""
    query_start: int = 0
    """Keys that stand before the first query: the length of the cache."""

    @property
    def key_length(self) -> int:
        """L_k."""
        return self.document_ids.shape[1]

    @property
    def query_length(self) -> int:
        """L_q."""
        return self.key_length - self.query_start

    @cached_property
    def dense(self) -> Tensor | None:
        """Boolean (B, 1, L_q, L_k), True where the query sees the key; None where everything is seen."""
        batch, keys = self.document_ids.shape
        device = self.document_ids.device
        if keys - self.query_start == 1 and bool((self.document_ids == self.document_ids[:, -1:]).all()):
            return None
        sees = visibility(self.document_ids, self.image_ids, self.query_start)
        b = torch.arange(batch, device=device).view(-1, 1, 1, 1)
        q = torch.arange(keys - self.query_start, device=device).view(1, 1, -1, 1)
        k = torch.arange(keys, device=device).view(1, 1, 1, -1)
        return sees(b, torch.zeros_like(b), q, k)

    @cached_property
    def block(self) -> BlockMask:
        """FlexAttention's block mask."""
        sees = visibility(self.document_ids, self.image_ids, self.query_start)
        batch, keys = self.document_ids.shape
        device = self.document_ids.device
        return _make_block_mask(device.type)(sees, batch, None, keys - self.query_start, keys, device=device)

    @cached_property
    def segments(self) -> list[list[Segment]]:
        """Per row, the runs that make up its queries. Padding appears in none.

        A run of words sees its document's beginning and itself causally; a picture sees its document's beginning and
        all of itself. No mask is needed for either, which is what makes long pictures cheap.
        """
        change = torch.ones_like(self.document_ids, dtype=torch.bool)
        change[:, 1:] = (self.document_ids[:, 1:] != self.document_ids[:, :-1]) | (
            self.image_ids[:, 1:] != self.image_ids[:, :-1]
        )
        rows = []
        for changes, documents, images in zip(change, self.document_ids, self.image_ids, strict=True):
            starts = changes.nonzero().squeeze(-1)
            rows.append(self._row_segments(starts.tolist(), documents[starts].tolist(), images[starts].tolist()))
        return rows

    def prefers_segments(self, segment_cost: int) -> bool:
        """Whether attending segment by segment is less work than one call with a dense mask.

        Args:
            segment_cost: what one more call costs, in query-key pairs.
        """
        queries = self.query_length
        if queries == 1:
            return False
        by_segments = sum(
            (s.stop - s.start) * (s.stop - s.first_key) + segment_cost for row in self.segments for s in row
        )
        return by_segments < self.document_ids.shape[0] * queries * self.key_length

    def _row_segments(self, starts: list[int], documents: list[int], images: list[int]) -> list[Segment]:
        segments = []
        first_key = 0
        for i, (start, document) in enumerate(zip(starts, documents, strict=True)):
            if i == 0 or document != documents[i - 1]:
                first_key = start
            stop = starts[i + 1] if i + 1 < len(starts) else self.key_length
            if document != PADDING and stop > self.query_start:
                segments.append(Segment(max(start, self.query_start), stop, first_key, causal=images[i] == TEXT))
        return segments
