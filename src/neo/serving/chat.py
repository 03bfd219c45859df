"""Answers to /v1/chat/completions, whole and in pieces."""

import time
from collections.abc import AsyncIterator
from typing import Any

from neo.inference.generation import Generation, Piece, TokenLogprob
from neo.serving.answering import Answering
from neo.serving.protocol import (
    ChatCompletion,
    ChatRequest,
    Choice,
    Logprob,
    Logprobs,
    PromptDetails,
    Said,
    TopLogprob,
    Usage,
)
from neo.serving.token_text import TokenText
from neo.serving.visit import Visit

LEAST_LOGPROB = -9999.0
"""In place of minus infinity, which JSON cannot say."""


async def answer(answering: Answering, visit: Visit, request: ChatRequest) -> ChatCompletion:
    """The whole answer.

    Raises:
        ApiError: it failed.
    """
    generations = await answering.chat(visit, request)
    await answering.wait(visit, generations)
    choices = []
    for index, generation in enumerate(generations):
        done = generation.completion()
        logprobs = _logprobs(answering, list(done.logprobs)) if request.logprobs else None
        said = Said(content=done.text)
        choices.append(Choice(index=index, message=said, logprobs=logprobs, finish_reason=done.finish_reason))  # type: ignore[arg-type]
    return ChatCompletion(
        id=f"chatcmpl-{visit.id}",
        created=int(time.time()),
        model=request.model,
        choices=choices,
        usage=usage(answering, generations),
    )


async def chunks(
    answering: Answering, visit: Visit, request: ChatRequest, generations: list[Generation]
) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream: for each answer who speaks, its pieces and why it ended; the usage if it was asked for.

    Raises:
        ApiError: it failed.
    """
    head = {"id": f"chatcmpl-{visit.id}", "object": "chat.completion.chunk", "created": int(time.time())}
    head |= {"model": request.model} | ({"usage": None} if request.include_usage else {})

    def chunk(index: int, delta: dict[str, str], finish_reason: str | None = None, piece: Piece | None = None) -> dict:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        if piece is not None and piece.logprob is not None:
            choice["logprobs"] = _logprobs(answering, [piece.logprob]).model_dump()
        return {**head, "choices": [choice]}

    for index in range(len(generations)):
        yield chunk(index, {"role": "assistant", "content": ""})
    async for index, piece in answering.pieces(visit, generations):
        if piece is None:
            yield chunk(index, {}, generations[index].finish_reason)
        elif piece.text or piece.logprob is not None:
            yield chunk(index, {"content": piece.text}, piece=piece)
    if request.include_usage:
        yield {**head, "choices": [], "usage": usage(answering, generations).model_dump()}


def usage(answering: Answering, generations: list[Generation]) -> Usage:
    """Tokens of finished answers."""
    tokens = answering.count(generations)
    prompt, said = tokens["prompt_tokens"], tokens["generated_tokens"]
    details = PromptDetails(cached_tokens=tokens["cached_tokens"])
    return Usage(
        prompt_tokens=prompt, completion_tokens=said, total_tokens=prompt + said, prompt_tokens_details=details
    )


def _logprobs(answering: Answering, tokens: list[TokenLogprob]) -> Logprobs:
    words = answering.token_text
    assert words is not None
    return Logprobs(content=[_logprob(words, one) for one in tokens])


def _logprob(words: TokenText, one: TokenLogprob) -> Logprob:
    top = [_top(words, token, logprob) for token, logprob in one.top]
    return Logprob(**_top(words, one.token, one.logprob).model_dump(), top_logprobs=top)


def _top(words: TokenText, token: int, logprob: float) -> TopLogprob:
    return TopLogprob(token=words.text(token), logprob=max(logprob, LEAST_LOGPROB), bytes=list(words.bytes(token)))
