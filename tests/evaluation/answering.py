"""A model that answers as it is told, and records to ask it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from neo.evaluation.answerer import Answer
from neo.processing import chat

COLORS = ("red", "green", "blue", "black", "white", "orange")


class Parrot:
    """Answers with what a function makes of the question's text; counts what it is asked."""

    def __init__(self, say: Callable[[str], str], name: str = "parrot") -> None:
        self.say, self.name = say, name
        self.asked: list[str] = []
        self.batches: list[int] = []

    def answer(self, conversations: Sequence[Any], max_new_tokens: int) -> list[Answer]:
        self.batches.append(len(conversations))
        answers = []
        for messages in conversations:
            text = "".join(part for part in chat.parse(messages).turns[-1].parts if isinstance(part, str)).strip()
            self.asked.append(text)
            said = self.say(text)
            answers.append(Answer(said, 0.5 + len(text) / 100, 0.25, len(said), 10, complete=len(said) < 20))
        return answers

    def peak_memory(self) -> int | None:
        return 3 * 2**30


def write_colors(folder: Path, number: int = 6) -> Path:
    """A file of records that ask for the colour of a picture, in two families."""
    records = []
    for place in range(number):
        color = COLORS[place % len(COLORS)]
        Image.new("RGB", (40, 30), color).save(folder / f"{place}.png")
        question = f"What color is picture {place}?"
        records.append(
            {"image": f"{place}.png", "question": question, "answer": color, "family": f"family {place % 2}"}
        )
    path = folder / "colors.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def knows(right: int) -> Callable[[str], str]:
    """Says the right colour of the first so many pictures, and pink of the others."""

    def say(text: str) -> str:
        place = int(text.removesuffix("?").split()[-1])
        return COLORS[place % len(COLORS)] if place < right else "pink"

    return say
