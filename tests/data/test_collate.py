import numpy as np
import torch

from neo.data.collate import collate
from neo.data.packing import Document


def document(index: int, length: int, grid: tuple[int, int] | None = None) -> Document:
    ids = np.arange(length) + 10 * (index + 1)
    patches = grid[0] * grid[1] if grid else 0
    grids = np.array([grid], dtype=np.int64) if grid else np.empty((0, 2), dtype=np.int64)
    return Document(index, f"d[{index}]", ids, ids.copy(), torch.full((patches, 768), float(index)), grids)


def test_rows() -> None:
    batch = collate([[document(0, 2), document(1, 1, (2, 2))], [document(2, 3, (2, 4))]], 4, pad_token_id=9)
    assert batch["input_ids"].tolist() == [[10, 11, 20, 9], [30, 31, 32, 9]]
    assert batch["document_ids"].tolist() == [[0, 0, 1, -1], [0, 0, 0, -1]]
    # The first token of a document is never predicted.
    assert batch["labels"].tolist() == [[-100, 11, -100, -100], [-100, 31, 32, -100]]
    assert batch["image_grid_hw"].tolist() == [[2, 2], [2, 4]]
    assert batch["pixel_values"][:, 0].tolist() == [1.0] * 4 + [2.0] * 8


def test_text_alone_has_no_pixels() -> None:
    assert set(collate([[document(0, 2)]], 4)) == {"input_ids", "document_ids", "labels"}
