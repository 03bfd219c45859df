"""Teach neo-demo a task that it cannot do: which way an arrow points. How good it is at it, before and after.

python examples/finetune_new_task.py [PICTURES [EPOCHS]]

With 400 pictures and 6 epochs it goes from 0.0% to 100.0% right on 200 pictures that it has not learned from, in
two minutes on one core of a CPU. The model is in runs/arrows then; remove that folder to start anew.
"""

import math
import random
import sys
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

import neo
from neo.training import train

QUESTION = "Which way does the arrow point?"
ANGLES = {"right": 0, "down": 90, "left": 180, "up": 270}
"""Answer to the arrow's angle in degrees, clockwise."""
COLORS = ("red", "green", "blue", "orange", "purple", "black")
OUTLINE = ((1, 0), (0.3, 0.5), (0.3, 0.2), (-1, 0.2), (-1, -0.2), (0.3, -0.2), (0.3, -0.5))
"""Of an arrow of length 2 that points right."""


def arrow(answer: str, chance: random.Random) -> Image.Image:
    """An arrow on a picture of 128 x 128 pixels: any place, size and colour, tilted by up to 15 degrees."""
    size, angle = chance.uniform(28, 48), math.radians(ANGLES[answer] + chance.uniform(-15, 15))
    x, y, cos, sin = chance.uniform(50, 78), chance.uniform(50, 78), size * math.cos(angle), size * math.sin(angle)
    picture = Image.new("RGB", (128, 128), "white")
    corners = [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in OUTLINE]
    ImageDraw.Draw(picture).polygon(corners, fill=chance.choice(COLORS))
    return picture


def records(count: int, seed: int) -> list[dict[str, Any]]:
    """So many pictures, each with the question and its answer; `image` could as well be the path of a file."""
    chance = random.Random(seed)
    answers = [chance.choice(list(ANGLES)) for _ in range(count)]
    return [
        {
            "image": arrow(answer, chance),
            "conversations": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}],
        }
        for answer in answers
    ]


def accuracy(model: str | Path, held_out: list[dict[str, Any]]) -> float:
    """The share of pictures that a model answers right."""
    answers = neo.load_model(model).generate_batch([one["image"] for one in held_out], QUESTION, max_new_tokens=8)
    expected = [one["conversations"][1]["content"] for one in held_out]
    return sum(said == right for said, right in zip(answers, expected, strict=True)) / len(held_out)


def main(pictures: int = 400, epochs: int = 6) -> None:
    """Measure, train, measure again."""
    held_out = records(pictures // 2, seed=1)
    print(f"before: {accuracy('neo-demo', held_out):.1%} right", flush=True)
    folder = train(
        model="neo-demo",
        dataset=records(pictures, seed=0),
        epochs=epochs,
        learning_rate=5e-4,  # ten times the default, which suits models a thousand times larger
        batch_size=8,
        output_dir="runs/arrows",
    )
    print(f"after:  {accuracy(folder, held_out):.1%} right")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
