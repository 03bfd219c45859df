"""Whoever answers questions about pictures: a NEO, or anything else with the two methods of `Answerer`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from neo.inference.chat import ChatModel
from neo.inference.engine import Engine
from neo.inference.generation import Completion, Generation
from neo.inference.loading import load_model
from neo.inference.messages import Messages
from neo.model.device import peak_memory, reset_peak_memory


@dataclass(frozen=True)
class Answer:
    """What was said to one question, and what it took."""

    text: str
    seconds: float
    """From the question, its pictures still in their files, to the end of the answer."""
    seconds_to_first_token: float | None = None
    """None where it is not known, or there was no token."""
    new_tokens: int | None = None
    """Tokens of the answer; None where it is not known, as are the others."""
    prompt_tokens: int | None = None
    """Tokens of the question, those of its pictures included."""
    complete: bool = True
    """Whether it came to its end, rather than to the limit of new tokens."""


class Answerer(Protocol):
    """Answers questions about pictures, greedily: the same question has the same answer."""

    name: str
    """What reports call it. Answers that a folder keeps are taken for those of anything else of this name."""

    @property
    def at_once(self) -> int | None:
        """Questions that it answers at the same time at the most; None, or left out, for as many as it is given."""
        ...

    def answer(self, conversations: Sequence[Messages], max_new_tokens: int) -> list[Answer]:
        """The answers to some conversations, asked at the same time.

        Args:
            conversations: each as `neo.processing.chat` takes it (its `parse` gives texts and pictures in order); the
                last message is the user's.
            max_new_tokens: tokens of an answer at the most.

        Raises:
            ValueError: one of them cannot be answered, such as an unreadable picture; begins with "question N: ",
                counted from 1.
        """
        ...

    def peak_memory(self) -> int | None:
        """Most bytes taken since it was loaded: of the GPU, or of the process on CPU; None where it is not known."""
        ...


class NeoAnswerer:
    """A NEO, by its engine."""

    def __init__(self, chat: ChatModel) -> None:
        self.chat, self.name, self.at_once = chat, chat.name, chat.engine.max_batch
        reset_peak_memory(chat.model.device)

    def answer(self, conversations: Sequence[Messages], max_new_tokens: int) -> list[Answer]:
        """See `Answerer`."""
        requests, preparing = [], []
        for number, messages in enumerate(conversations, 1):
            start = time.monotonic()
            try:
                requests.append(self.chat.request(messages, max_new_tokens=max_new_tokens))
            except ValueError as error:
                raise ValueError(f"question {number}: {error}") from error
            preparing.append(time.monotonic() - start)
        generations = [self.chat.engine.submit(request) for request in requests]
        try:
            return [_answer(*one) for one in zip(preparing, map(Generation.result, generations), strict=True)]
        finally:  # where one goes wrong, the others are broken off
            for generation in generations:
                generation.cancel()

    def peak_memory(self) -> int | None:
        """See `Answerer`."""
        return peak_memory(self.chat.model.device)


def _answer(preparing: float, said: Completion) -> Answer:
    first = said.seconds_to_first_token
    return Answer(
        text=said.text,
        seconds=preparing + said.seconds,
        seconds_to_first_token=None if first is None else preparing + first,
        new_tokens=len(said.tokens),
        prompt_tokens=said.prompt_tokens,
        complete=said.finish_reason == "stop",
    )


def load_answerer(
    model: str | Path | ChatModel | Answerer, batch_size: int = 16, warm_up: bool = False, **options: Any
) -> Answerer:
    """Whom a name means.

    Args:
        model: "neo-demo", a published name, a hub id or a folder; "hf:" and the folder or hub id of any model that
            transformers' `AutoModelForImageTextToText` loads; "openai:" and the address of a server (see
            `neo.evaluation.openai_server`); or what `neo.load_model` returned; or an answerer of your own.
        batch_size: questions that a NEO answers at the same time, for a name.
        warm_up: let the model answer one token before, so that the first question is no slower than the others; not of
            a server or an answerer of your own.
        options: of `neo.load_model`, for a name; behind "hf:" only dtype, device and download, behind "openai:" none.

    Raises:
        ValueError: as `neo.load_model`; or options beside a model that is loaded already.
    """
    answerer: Answerer
    kind, _, name = str(model).partition(":")
    if not isinstance(model, str | Path):
        if given := [name for name, value in options.items() if value not in (None, "auto", False)]:
            raise ValueError(f"{', '.join(given)} chooses how a model is loaded, and this one is loaded already")
        if not isinstance(model, ChatModel):
            return model
        answerer = NeoAnswerer(model)
    elif kind == "openai":
        from neo.evaluation.openai_server import load_openai

        return load_openai(name, **_only(options, "openai:", ()))
    elif kind == "hf":
        from neo.evaluation.huggingface import load_huggingface

        answerer = load_huggingface(name, **_only(options, "hf:", ("dtype", "device", "download")))
    else:
        chat = load_model(model, **options)
        chat.engine = Engine(chat.model, chat.processor, max_batch=batch_size)
        answerer = NeoAnswerer(chat)
    if warm_up:
        answerer.answer([[{"role": "user", "content": "Hello", "image": Image.new("RGB", (64, 64))}]], 1)
    return answerer


def _only(options: dict[str, Any], kind: str, known: Sequence[str]) -> dict[str, Any]:
    """The options that such models take; the others must be as if they were not given."""
    for name, value in options.items():
        if name not in known and value not in (None, "auto", False):
            raise ValueError(
                f"{name}={value!r} is for a NEO; models behind {kind} take {', '.join(known) or 'no options'}"
            )
    return {name: options[name] for name in known if name in options}


def one_line(error: Exception) -> str:
    """What other people's libraries say in several lines."""
    return " ".join(str(error).split())
