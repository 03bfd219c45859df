"""Where a model looks in its pictures as it says a word."""

import torch
from torch import Tensor

from neo.model.masks import AttentionMask
from neo.model.neo import NeoForConditionalGeneration
from neo.model.positions import TEXT, number_images
from neo.processing.processor import Encoded


@torch.inference_mode()
def attention_to_pictures(
    model: NeoForConditionalGeneration, prompt: Encoded, said: Tensor, tokens: int, layers: slice | None = None
) -> list[Tensor]:
    """The attention over each picture of the queries that chose the last tokens of an answer.

    One forward of the conversation, in which these queries' weights are computed a second time, written out.

    Args:
        model: in evaluation mode.
        prompt: the conversation before the answer.
        said: ids of the answer up to the last of the tokens.
        tokens: how many, at least 1; more are averaged.
        layers: those whose heads are averaged; all behind the pre-Buffer unless given.

    Returns:
        For each picture (rows, columns) of its tokens: shares of all that is attended to, in float32 on CPU.
    """
    decoder = model.model.language_model
    device = decoder.embed_tokens.weight.device
    ids_1L = torch.cat([prompt.input_ids, said[:-1]])[None].to(device)
    grid = prompt.image_grid_hw.to(device)
    token_grid = model.model.token_grid(grid)
    image_ids_1L = number_images(ids_1L, token_grid.prod(-1), model.config.image_token_id)
    x_1LC = decoder.embed_tokens(ids_1L)
    if len(grid):
        x_1LC[image_ids_1L != TEXT] = model.model.get_image_features(prompt.pixel_values.to(device), grid).to(x_1LC)
    attend = decoder.attention_over(AttentionMask(torch.zeros_like(image_ids_1L), image_ids_1L))
    shares = []

    def watched(query_1HLE: Tensor, key_1KLE: Tensor, value_1KLD: Tensor) -> Tensor:
        shares.append(_shares(query_1HLE[:, :, -tokens:], key_1KLE, decoder.config.head_dim**-0.5).cpu())
        return attend(query_1HLE, key_1KLE, value_1KLD)

    decoder(x_1LC, model.get_positions(ids_1L, grid), watched)
    behind = slice(decoder.config.pre_buffer_layers or 0, None)
    mean_L = torch.stack(shares[layers or behind]).mean(0)
    parts = [mean_L[image_ids_1L[0].cpu() == number] for number in range(len(grid))]
    return [part.reshape(size) for part, size in zip(parts, token_grid.tolist(), strict=True)]


def _shares(query_1HTE: Tensor, key_1KLE: Tensor, scale: float) -> Tensor:
    """(L,) mean over heads of the attention of the last T places, which are words: each sees all up to itself."""
    heads, tokens = query_1HTE.shape[1:3]
    keys, length = key_1KLE.shape[1:3]
    grouped = query_1HTE.reshape(1, keys, -1, query_1HTE.shape[-1])  # queries of one key head are rows of one product
    scores_1HTL = (grouped @ key_1KLE.transpose(-1, -2)).float().reshape(1, heads, tokens, length) * scale
    later_TL = torch.ones(tokens, length, dtype=torch.bool, device=scores_1HTL.device).triu(length - tokens + 1)
    return scores_1HTL.masked_fill(later_TL, -torch.inf).softmax(-1).mean((0, 1, 2))
