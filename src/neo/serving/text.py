"""Answers to /v1/completions, whole and in pieces."""

import time
from collections.abc import AsyncIterator
from typing import Any

from neo.inference.generation import Generation, TokenLogprob
from neo.serving.answering import Answering
from neo.serving.chat import LEAST_LOGPROB, usage
from neo.serving.protocol import Completion, CompletionRequest, TextChoice, TextLogprobs
from neo.serving.visit import Visit


async def answer(answering: Answering, visit: Visit, request: CompletionRequest) -> Completion:
    """The whole answer.

    Raises:
        ApiError: it failed.
    """
    generations = await answering.complete(visit, request)
    await answering.wait(visit, generations)
    choices = []
    for index, generation in enumerate(generations):
        done = generation.completion()
        logprobs = None if request.logprobs is None else _logprobs(answering, list(done.logprobs), 0)
        finish: Any = done.finish_reason
        choices.append(TextChoice(index=index, text=done.text, logprobs=logprobs, finish_reason=finish))
    return Completion(
        id=f"cmpl-{visit.id}",
        created=int(time.time()),
        model=request.model,
        choices=choices,
        usage=usage(answering, generations),
    )


async def chunks(
    answering: Answering, visit: Visit, request: CompletionRequest, generations: list[Generation]
) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream.

    Raises:
        ApiError: it failed.
    """
    head = {"id": f"cmpl-{visit.id}", "object": "text_completion", "created": int(time.time()), "model": request.model}
    head |= {"usage": None} if request.include_usage else {}
    said = [0] * len(generations)
    async for index, piece in answering.pieces(visit, generations):
        choice: dict[str, Any] = {"index": index, "text": piece.text if piece else "", "logprobs": None}
        choice["finish_reason"] = generations[index].finish_reason if piece is None else None
        if piece is not None:
            if piece.logprob is not None:
                choice["logprobs"] = _logprobs(answering, [piece.logprob], said[index]).model_dump()
            elif not piece.text:
                continue
            said[index] += len(piece.text)
        yield {**head, "choices": [choice]}
    if request.include_usage:
        yield {**head, "choices": [], "usage": usage(answering, generations).model_dump()}


def _logprobs(answering: Answering, tokens: list[TokenLogprob], offset: int) -> TextLogprobs:
    words = answering.token_text
    assert words is not None
    texts = [words.text(one.token) for one in tokens]
    offsets = [offset + sum(map(len, texts[:i])) for i in range(len(texts))]
    return TextLogprobs(
        tokens=texts,
        token_logprobs=[max(one.logprob, LEAST_LOGPROB) for one in tokens],
        top_logprobs=[{words.text(token): max(value, LEAST_LOGPROB) for token, value in one.top} for one in tokens],
        text_offset=offsets,
    )
