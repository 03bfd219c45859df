"""A rank's rows of a global batch, in pieces that fit into memory."""

from collections.abc import Iterator

import torch
from torch import Tensor

from neo.model.config import PADDING, NeoVisionConfig

PICTURES = ("pixel_values", "image_grid_hw")
"""Inputs that are not (rows, tokens)."""


def micro_batches(
    inputs: dict[str, Tensor], rows: int, image_token_id: int, vision: NeoVisionConfig
) -> Iterator[dict[str, Tensor]]:
    """Cut a batch by rows, pictures going with their rows.

    Sharding needs every rank to use the same parameters in the same order, whatever its rows hold. So every piece has
    pictures, be it none of them (0 patches), and a row of nothing but padding, as in the last batch of a stream, is a
    document without labels: padding alone would not be attended to.

    Args:
        inputs: what `neo.data.collate` made.
        rows: rows of a piece; the last may have fewer.
        image_token_id: the id of `<IMG_CONTEXT>`.
        vision: sizes of patches and tokens.

    Yields:
        The same names, always with `pixel_values` and `image_grid_hw`.
    """
    by_row = {name: tensor for name, tensor in inputs.items() if name not in PICTURES}
    documents_BL = by_row["document_ids"]
    by_row["document_ids"] = documents_BL.masked_fill((documents_BL == PADDING).all(-1, keepdim=True), 0)
    ids_BL = by_row["input_ids"]
    grids_N2 = inputs.get("image_grid_hw", ids_BL.new_zeros(0, 2))
    width = vision.num_channels * vision.patch_size**2
    pixels = inputs.get("pixel_values", torch.zeros(0, width, device=ids_BL.device))
    # Pictures up to and with each row, from the tokens up to and with each picture.
    patches_N = grids_N2.prod(-1)
    tokens_B = (ids_BL == image_token_id).sum(-1).cumsum(0)
    pictures_B = torch.searchsorted((patches_N // vision.merge_size**2).cumsum(0), tokens_B, right=True)
    pictures_after, patches_after = [0, *pictures_B.tolist()], [0, *patches_N.cumsum(0).tolist()]
    for start in range(0, len(ids_BL), rows):
        stop = min(start + rows, len(ids_BL))
        first, last = pictures_after[start], pictures_after[stop]
        yield {name: tensor[start:stop] for name, tensor in by_row.items()} | {
            "pixel_values": pixels[patches_after[first] : patches_after[last]],
            "image_grid_hw": grids_N2[first:last],
        }
