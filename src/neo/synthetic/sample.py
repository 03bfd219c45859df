"""What the generator hands out, and the small random helpers that every family uses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

T = TypeVar("T")


@dataclass(frozen=True)
class Turn:
    """One question with its answer; `kind` is the family that the question belongs to."""

    question: str
    answer: str
    kind: str


@dataclass(frozen=True)
class Sample:
    """A picture (RGB, or None for text only) and the conversation about it.

    `family` is the kind of the first turn.
    """

    family: str
    image: Image.Image | None
    turns: tuple[Turn, ...]

    def messages(self) -> list[dict]:
        """The conversation as chat messages; the picture is in the first user turn.

        A turn with an image has a content list, the others plain strings.
        """
        messages: list[dict] = []
        for number, turn in enumerate(self.turns):
            question: str | list[dict] = turn.question
            if number == 0 and self.image is not None:
                question = [{"type": "image", "image": self.image}, {"type": "text", "text": turn.question}]
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": turn.answer})
        return messages


# Generator.choice and Generator.integers cost several times as much as one call of random().


def chance(rng: np.random.Generator, probability: float) -> bool:
    """True with the given probability."""
    return bool(rng.random() < probability)


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, all equally likely."""
    return options[int(rng.random() * len(options))]


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return low + int(rng.random() * (high - low + 1))


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number from low to high."""
    return low + (high - low) * float(rng.random())


def weighted(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """One of the keys, with probability proportional to its weight."""
    point = float(rng.random()) * sum(weights.values())
    for name, weight in weights.items():
        point -= weight
        if point < 0:
            return name
    return [name for name, weight in weights.items() if weight > 0][-1]


def shuffled(rng: np.random.Generator, items: Sequence[T]) -> list[T]:
    """The items in random order."""
    return [items[i] for i in rng.permutation(len(items))]


def article(noun: str) -> str:
    """The noun with "a" or "an" before it."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def asked(rng: np.random.Generator, canonical: str, others: Sequence[str], plain: bool) -> str:
    """The canonical question (always when `plain`, else three times in four) or a paraphrase."""
    if plain or not others or chance(rng, 0.75):
        return canonical
    return pick(rng, others)
