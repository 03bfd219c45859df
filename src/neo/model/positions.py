"""From token ids and picture grids to the three positions (t, h, w) of every token.

Words count up in t and stand at h = w = 0. A picture costs one step of t however large it is: all its tokens share
one t, and h and w are their row and column on the token grid.

    text text <img> ctx ctx ctx ctx </img> text        a picture of 2 x 2 tokens
  t   0    1    2    3   3   3   3    4     5
  h   0    0    0    0   0   1   1    0     0
  w   0    0    0    0   1   0   1    0     0
"""

import torch
from torch import Tensor

from neo.model.config import PADDING

TEXT = -1
"""Image id of a token that belongs to no picture."""


def number_images(input_ids_BL: Tensor, tokens_per_image_N: Tensor, image_token_id: int) -> Tensor:
    """Tell the picture of every token.

    Args:
        input_ids_BL: token ids.
        tokens_per_image_N: tokens of each picture, in the order in which the pictures stand in the batch, row by row.
        image_token_id: the id of `<IMG_CONTEXT>`.

    Returns:
        (B, L): the index of the token's picture in the batch, `TEXT` for words.

    Raises:
        ValueError: the ids hold more or fewer image tokens than the pictures give, a picture gives none, or its tokens
            are torn apart.
    """
    is_image = input_ids_BL == image_token_id
    places = is_image.flatten().nonzero().squeeze(-1)
    if (given := int(tokens_per_image_N.sum())) != places.numel():
        raise ValueError(
            f"the text holds {places.numel()} image tokens but the pictures give {given} "
            f"({tokens_per_image_N.numel()} pictures): every picture needs one <IMG_CONTEXT> per token of its grid"
        )
    if (tokens_per_image_N < 1).any():
        raise ValueError(f"every picture must give at least one image token, these give {tokens_per_image_N.tolist()}")
    image_ids = torch.full_like(input_ids_BL, TEXT)
    if given == 0:
        return image_ids
    last_K = tokens_per_image_N.cumsum(0) - 1
    first_K = last_K + 1 - tokens_per_image_N
    torn = (places[last_K] - places[first_K] + 1 != tokens_per_image_N) | (
        places[last_K] // input_ids_BL.shape[1] != places[first_K] // input_ids_BL.shape[1]
    )
    if torn.any():
        raise ValueError(
            f"the tokens of picture {int(torn.nonzero()[0])} do not stand together in one row: "
            "give image_grid_hw in the order in which the pictures appear in input_ids"
        )
    numbers = torch.arange(tokens_per_image_N.numel(), device=input_ids_BL.device)
    image_ids[is_image] = numbers.repeat_interleave(tokens_per_image_N)
    return image_ids


def thw_positions(image_ids_BL: Tensor, token_grid_N2: Tensor, document_ids_BL: Tensor | None = None) -> Tensor:
    """Positions of every token.

    Args:
        image_ids_BL: what `number_images` returns.
        token_grid_N2: rows and columns of each picture, in TOKENS.
        document_ids_BL: which document each token belongs to; positions start anew in each. None: one document a row.

    Returns:
        (3, B, L) int64: t, h, w.
    """
    is_text = image_ids_BL == TEXT
    starts_run = torch.ones_like(is_text)
    starts_run[:, 1:] = image_ids_BL[:, 1:] != image_ids_BL[:, :-1]
    t_BL = (is_text | starts_run).long().cumsum(-1) - 1
    if document_ids_BL is not None:
        starts_document = torch.ones_like(is_text)
        starts_document[:, 1:] = document_ids_BL[:, 1:] != document_ids_BL[:, :-1]
        t_BL = t_BL - (t_BL * starts_document).cummax(-1).values
    positions = torch.zeros(3, *image_ids_BL.shape, dtype=torch.long, device=image_ids_BL.device)
    positions[0] = t_BL
    if token_grid_N2.numel():
        place_K, width_K = _places_in_grid(token_grid_N2)
        positions[1][~is_text] = place_K // width_K
        positions[2][~is_text] = place_K % width_K
    return positions


def _places_in_grid(grid_N2: Tensor) -> tuple[Tensor, Tensor]:
    """Of every cell of every grid, row-major: its index inside its grid, and the width of that grid."""
    cells_N = grid_N2.prod(-1)
    before_K = (cells_N.cumsum(0) - cells_N).repeat_interleave(cells_N)
    place_K = torch.arange(before_K.numel(), device=grid_N2.device) - before_K
    return place_K, grid_N2[:, 1].repeat_interleave(cells_N)


def grid_rows_and_columns(grid_N2: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every cell of every grid, one grid after the other, each row-major: two (cells,) tensors."""
    place_K, width_K = _places_in_grid(grid_N2)
    return place_K // width_K, place_K % width_K


def grid_hw(image_grid_hw: Tensor | None, image_grid_thw: Tensor | None) -> Tensor:
    """The (images, 2) grid from either name; no pictures where both are None."""
    if image_grid_hw is None and image_grid_thw is not None:
        image_grid_hw = image_grid_thw[:, 1:]
    return torch.zeros(0, 2, dtype=torch.long) if image_grid_hw is None else image_grid_hw


def documents_of(input_ids: Tensor, attention_mask: Tensor | None, document_ids: Tensor | None, past: int) -> Tensor:
    """(B, past + L): the document of every key, `PADDING` where the attention mask is 0."""
    if document_ids is None:
        document_ids = input_ids.new_zeros(input_ids.shape[0], past + input_ids.shape[1])
    if attention_mask is not None:
        document_ids = document_ids.masked_fill(attention_mask == 0, PADDING)
    return document_ids
