"""POST /attention: where the model looked as it said a word."""

from bisect import bisect_left, bisect_right
from typing import Any

import torch

from neo.inference.attention_map import attention_to_pictures
from neo.serving.answering import Answering
from neo.serving.errors import ApiError
from neo.serving.protocol import Attention, AttentionRequest, PictureAttention
from neo.serving.visit import Visit

MOST_TOKENS = 32
"""Of a word: each takes memory for its attention to the whole conversation."""


async def look(answering: Answering, visit: Visit, request: AttentionRequest) -> Attention:
    """The attention over all pictures, by one forward of the conversation beside the engine.

    Raises:
        ApiError: it makes no sense, is too long, or has no picture.
    """
    urls = answering.urls(request.model, request.messages)
    if not urls:
        raise ApiError(400, "the conversation has no picture to look at", param="messages")
    answering.check_sizes(0, len(request.answer))

    def compute(turns: list[dict[str, Any]]) -> Attention:
        model = answering.ready()
        ids, starts = answering.plain.ids_and_starts(request.answer)
        first = max(0, bisect_right(starts, request.start) - 1)
        last = max(first + 1, bisect_left(starts, request.stop))  # behind the word's last token
        if last - first > MOST_TOKENS:
            raise ValueError(f"start and stop take in {last - first} tokens of the answer; at most {MOST_TOKENS} can")
        prompt = model.request(turns, max_new_tokens=len(ids)).prompt
        grids = attention_to_pictures(model.model, prompt, torch.tensor(ids[:last]), last - first)
        pictures = [
            PictureAttention(rows=len(grid), columns=grid.shape[1], shares=[round(one, 6) for one in row_major])
            for grid, row_major in ((grid, grid.flatten().tolist()) for grid in grids)
        ]
        return Attention(pictures=pictures)

    return await answering.with_turns(visit, request.messages, urls, compute)
