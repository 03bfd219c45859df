import torch

from neo.model.config import PADDING, NeoVisionConfig
from neo.training.microbatch import micro_batches

IMAGE = 9
VISION = NeoVisionConfig()
GRIDS = [(2, 2), (2, 4), (4, 2)]
"""Of 1, 2 and 2 tokens."""


def batch() -> dict[str, torch.Tensor]:
    """Four rows: two pictures, none, none, one; the pixels of a picture are its number."""
    ids = torch.tensor([[1, IMAGE, 1, IMAGE, IMAGE], [1, 1, 1, 1, 1], [2, 2, 2, 2, 2], [1, IMAGE, IMAGE, 1, 1]])
    numbers = torch.arange(3).repeat_interleave(torch.tensor([h * w for h, w in GRIDS]))
    return {
        "input_ids": ids,
        "labels": ids.clone(),
        "document_ids": torch.zeros_like(ids),
        "pixel_values": numbers.float()[:, None].expand(-1, 768),
        "image_grid_hw": torch.tensor(GRIDS),
    }


def test_pictures_go_with_their_rows() -> None:
    pieces = list(micro_batches(batch(), 1, IMAGE, VISION))
    assert [piece["input_ids"].tolist() for piece in pieces] == [[row] for row in batch()["input_ids"].tolist()]
    assert [piece["image_grid_hw"].tolist() for piece in pieces] == [[[2, 2], [2, 4]], [], [], [[4, 2]]]
    assert [piece["pixel_values"][:, 0].unique().tolist() for piece in pieces] == [[0, 1], [], [], [2]]
    assert pieces[1]["pixel_values"].shape == (0, 768)


def test_the_last_piece_may_have_fewer_rows() -> None:
    pieces = list(micro_batches(batch(), 3, IMAGE, VISION))
    assert [len(piece["labels"]) for piece in pieces] == [3, 1]
    assert [len(piece["image_grid_hw"]) for piece in pieces] == [2, 1]


def test_a_row_of_padding_is_a_document_without_labels() -> None:
    inputs = batch()
    inputs["document_ids"][1] = PADDING
    inputs["document_ids"][2, 3:] = PADDING
    (piece,) = micro_batches(inputs, 4, IMAGE, VISION)
    assert piece["document_ids"].tolist() == [[0] * 5, [0] * 5, [0, 0, 0, PADDING, PADDING], [0] * 5]
    assert inputs["document_ids"][1].tolist() == [PADDING] * 5
