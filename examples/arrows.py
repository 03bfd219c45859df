"""A task that neo-demo cannot do, as records to learn from: which way an arrow points.

Used by finetune_and_compare.py and trl_sft.py.
"""

import math
import random
from typing import Any

from PIL import Image, ImageDraw

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
