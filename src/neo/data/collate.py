"""Packed rows to what the network's forward takes."""

from collections.abc import Sequence

import numpy as np
import torch

from neo.data.packing import Document
from neo.model.config import IGNORE, PADDING


def collate(rows: Sequence[Sequence[Document]], max_seq_length: int, pad_token_id: int = 0) -> dict[str, torch.Tensor]:
    """Lay documents out in rows.

    Args:
        rows: documents of each row, in order.
        max_seq_length: tokens of a row; what the documents leave is padding.
        pad_token_id: what stands in the padding.

    Returns:
        `input_ids`, `labels` (-100 for no loss) and `document_ids` (counted from 0 in each row, -1 for
        padding), each (rows, max_seq_length) int64; with pictures also `pixel_values` (patches, 768) and
        `image_grid_hw` (pictures, 2), in the order in which their placeholders stand, row by row.
    """
    shape = (len(rows), max_seq_length)
    input_ids = np.full(shape, pad_token_id, dtype=np.int64)
    labels = np.full(shape, IGNORE, dtype=np.int64)
    document_ids = np.full(shape, PADDING, dtype=np.int64)
    for number, row in enumerate(rows):
        start = 0
        for document_id, document in enumerate(row):
            stop = start + len(document)
            input_ids[number, start:stop] = document.input_ids
            labels[number, start:stop] = document.labels
            labels[number, start] = IGNORE  # nothing stands before a document's first token to predict it from
            document_ids[number, start:stop] = document_id
            start = stop
    inputs = {"input_ids": input_ids, "labels": labels, "document_ids": document_ids}
    batch = {name: torch.from_numpy(array) for name, array in inputs.items()}
    pictures = [document for row in rows for document in row if len(document.image_grid_hw)]
    if pictures:
        batch["pixel_values"] = torch.cat([document.pixel_values for document in pictures])
        batch["image_grid_hw"] = torch.from_numpy(np.concatenate([document.image_grid_hw for document in pictures]))
    return batch
