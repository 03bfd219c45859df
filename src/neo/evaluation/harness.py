"""A NEO as the published benchmark runs asked it, for lmms-eval and VLMEvalKit alike: pictures, prompts, sampling.

What is here was read off the published evaluation code: NEO answers greedily, shortly and without system prompt; NEO-ov
is told to reason step by step and samples. Pictures stand before the text, and are never smaller than the least area.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from neo.evaluation.questions import HOW_TO_CHOOSE
from neo.inference.chat import ChatModel
from neo.inference.engine import Engine
from neo.inference.generation import Completion, Request
from neo.inference.loading import load_model
from neo.inference.sampling import Sampling
from neo.processing.picture import load_image

AREA = 32 * 32
"""Pixels of one token."""
LETTER = HOW_TO_CHOOSE
SHORT = "Answer the question using a single word or phrase."
YES_NO = f"Please answer yes or no. {SHORT}"
OPEN = "Answer the question directly."
"""Where a question of a set with choices has none."""
REASON_CHOICE = (
    "Answer the preceding multiple choice question. The last line of your response should follow this format: "
    "'Answer: \\boxed LETTER' (without quotes), where LETTER is one of the options. If you are uncertain or the "
    "problem is too complex, make a reasoned guess based on the information provided. Avoid repeating steps "
    "indefinitely—provide your best guess even if unsure. Think step by step logically, considering all relevant "
    "information before answering.\n\n"
)
REASON_OPEN = (
    "Your output should be divided into two parts: First, reason about the correct answer. Then write the answer in "
    'the following format where X is only the answer and nothing else: "ANSWER: X"\n'
)


@dataclass(frozen=True)
class Style:
    """How a family was asked."""

    min_pixels: int = 1280 * AREA
    max_pixels: int = 4096 * AREA
    system: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_new_tokens: int = 4096
    areas: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Other least and largest areas of the benchmarks with these in their names."""
    reasons: bool = False
    """Whether MMMU is asked for reasoning."""

    def bounds(self, task: str) -> tuple[int, int]:
        """Least and largest area of a picture, in pixels."""
        return next(
            (area for name, area in self.areas.items() if name in task.lower()), (self.min_pixels, self.max_pixels)
        )


STYLES = {
    "neo": Style(areas={"ocrbench": (256 * 256, 4096 * AREA)}),
    "neo-ov": Style(
        max_pixels=16384 * AREA,
        system="Reason step by step.",
        sampling=Sampling(temperature=0.6, top_p=0.95, top_k=20, repetition_penalty=1.05, seed=0),
        max_new_tokens=16384,
        areas={
            "mmmu": (1003520, 4014080),
            "textvqa": (2048 * AREA, 16384 * AREA),
            "ocrbench": (512 * 512, 16384 * AREA),
        },
        reasons=True,
    ),
}


@dataclass(frozen=True)
class Asked:
    """A question of a benchmark."""

    task: str
    """The benchmark's name in its harness."""
    text: str
    pictures: Sequence[Any] = ()
    system: str | None = None
    """In place of the style's."""
    max_new_tokens: int | None = None
    """In place of the style's, if it is less."""
    stop: tuple[str, ...] = ()


class BenchmarkModel:
    """Answers questions of benchmarks in the published style.

    Args:
        model: as `neo.load_model` takes it, or what it returned.
        style: "neo", "neo-ov" or "auto": by the model's name.
        min_pixels, max_pixels: area of a picture in pixels, for all benchmarks; the style's unless given.
        max_new_tokens: of an answer at the most; the style's unless given.
        batch_size: answers under way at the same time; of what `neo.load_model` returned its engine's at the most.
        options: of `neo.load_model`.

    Raises:
        ValueError: as `neo.load_model`, or an option is wrong.
    """

    def __init__(
        self,
        model: str | ChatModel = "neo-demo",
        style: str = "auto",
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        max_new_tokens: int | None = None,
        batch_size: int = 16,
        **options: Any,
    ) -> None:
        if style not in (*STYLES, "auto"):
            raise ValueError(f"style={style!r} must be auto, {' or '.join(STYLES)}")
        numbers = {"min_pixels": min_pixels, "max_pixels": max_pixels}
        numbers |= {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
        for name, value in numbers.items():
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}={value!r} must be a whole number of at least 1")
        self.chat = model if isinstance(model, ChatModel) else load_model(model, **options)
        if self.chat is not model:
            self.chat.engine = Engine(self.chat.model, self.chat.processor, max_batch=batch_size)
        self.name = self.chat.name
        self.style = STYLES[style if style != "auto" else style_of(self.name)]
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self._bounds = min_pixels, max_pixels

    def bounds(self, task: str) -> tuple[int, int]:
        """Least and largest area of a picture of a benchmark, in pixels."""
        least, largest = (
            of_style if given is None else given
            for given, of_style in zip(self._bounds, self.style.bounds(task), strict=True)
        )
        if least > largest:
            raise ValueError(f"min_pixels={least} is above max_pixels={largest}")
        return least, largest

    def answers(self, questions: Iterable[Asked]) -> Iterator[Completion]:
        """The answers, in order; up to twice `batch_size` questions are under way."""
        under_way: deque = deque()
        try:
            for question in questions:
                under_way.append(self.chat.engine.submit(self.request(question)))
                if len(under_way) == 2 * self.batch_size:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for generation in under_way:
                generation.cancel()

    def request(self, asked: Asked) -> Request:
        """A question as the engine takes it.

        Raises:
            ValueError: an unreadable picture, or more than fits into the model's context.
        """
        pictures = [load_image(picture) for picture in asked.pictures]
        if pictures and "mmmu" in asked.task.lower():  # the published runs show the first picture twice as large
            first = pictures[0]
            pictures[0] = first.resize((2 * first.width, 2 * first.height), Image.Resampling.BILINEAR)
        parts = [*({"type": "image", "image": one} for one in pictures), {"type": "text", "text": asked.text}]
        system = self.style.system if asked.system is None else asked.system
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": system or ""},
            {"role": "user", "content": parts},
        ]
        least, largest = self.bounds(asked.task)
        prompt = self.chat.processor.encode(messages, add_generation_prompt=True, min_pixels=least, max_pixels=largest)
        limit = self.max_new_tokens or min(asked.max_new_tokens or self.style.max_new_tokens, self.style.max_new_tokens)
        limit = max(1, min(limit, self.chat.engine.room_behind(prompt)))
        tokenizer = self.chat.processor.tokenizer
        ends = frozenset({self.chat.processor.ids.im_end, tokenizer.eos_token_id} - {None})
        request = Request(prompt, limit, self.style.sampling, ends, asked.stop)
        self.chat.engine.check(request)
        return request


def style_of(name: str) -> str:
    """The family of a model, by its name."""
    return "neo-ov" if re.search(r"NEO-ov|NEO1_5", name, re.IGNORECASE) else "neo"


def published_prompt(
    task: str, question: str, choices: Mapping[str, str], kind: str, style: Style, hint: str = ""
) -> str:
    """The text of a question as the published runs asked it.

    Args:
        task: the benchmark's name.
        question: as it stands in the data.
        choices: letters and what they stand for; empty for an open question.
        kind: "choice", "yes/no" or "open".
        style: of the model.
        hint: stands before the question.
    """
    task = task.lower()
    if kind == "choice":
        text = "\n".join(
            [*([hint] if hint else []), question, *(f"{letter}. {one}" for letter, one in choices.items())]
        )
        if style.reasons and "mmmu" in task:
            return (REASON_CHOICE if choices else REASON_OPEN) + text
        return f"{text}\n{LETTER if choices else OPEN}"
    if kind == "yes/no":
        return f"{question} {YES_NO}" if "hallusion" in task else question
    return question if "mmvet" in task else f"{question}\n{SHORT}"
