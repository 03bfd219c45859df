"""Draw the pictures of examples/images and write what is asked about them into questions.json.

    python examples/make_images.py

The first three are drawn here with Pillow, so that you can see how little it takes to ask about a drawing
of your own; the others come from the held-out split of `neo.synthetic`, which the model in the package was
not trained on.
"""

import json
import math
from pathlib import Path

from PIL import Image, ImageDraw

from neo.synthetic import generate

IMAGES = Path(__file__).parent / "images"
SEED = 11
HELD_OUT = {"number": 5, "digit": 4, "word": 4, "chart": 2, "receipt": 6}
"""Picture to the index of its sample in the held-out split; chosen by eye, not by what the model answers."""
FAMILIES = {"digit": "handwritten"}
"""Family of a picture where it is not the picture's name."""


def circle() -> Image.Image:
    """A big red circle."""
    image = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(image).ellipse((18, 18, 110, 110), fill="red")
    return image


def two_shapes() -> Image.Image:
    """A blue square beside a green triangle."""
    image = Image.new("RGB", (192, 128), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((20, 36, 76, 92), fill="blue")
    draw.polygon([(140, 32), (108, 92), (172, 92)], fill="green")
    return image


def stars() -> Image.Image:
    """Four stars."""
    image = Image.new("RGB", (128, 128), "white")
    draw = ImageDraw.Draw(image)
    for x, y in ((30, 30), (94, 38), (36, 94), (98, 98)):
        radii = [18 if corner % 2 == 0 else 8 for corner in range(10)]
        turns = [corner * math.pi / 5 for corner in range(10)]
        star = [(x + r * math.sin(a), y - r * math.cos(a)) for r, a in zip(radii, turns, strict=True)]
        draw.polygon(star, fill="orange")
    return image


def main() -> None:
    """Write everything."""
    IMAGES.mkdir(exist_ok=True)
    drawn = {
        "circle.png": (circle(), "What color is the circle?", "red"),
        "two_shapes.png": (two_shapes(), "Which shape is on the left?", "square"),
        "stars.png": (stars(), "How many stars are there?", "4"),
    }
    for name, index in HELD_OUT.items():
        sample = generate(SEED, index, "test", {FAMILIES.get(name, name): 1.0})
        assert sample.image is not None
        turn = sample.turns[0]
        drawn[f"{name}.png"] = (sample.image, turn.question, turn.answer)
    for name, (image, _, _) in drawn.items():
        image.save(IMAGES / name, optimize=True)
    questions = [{"image": name, "question": q, "answer": a} for name, (_, q, a) in drawn.items()]
    (IMAGES / "questions.json").write_text(json.dumps(questions, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
