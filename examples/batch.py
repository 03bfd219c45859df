"""Several pictures and questions at once: one padded batch instead of one call after the other.

python examples/batch.py
"""

from pathlib import Path

import neo

IMAGES = Path(__file__).parent / "images"
PICTURES = ["circle.png", "two_shapes.png", "number.png"]
QUESTIONS = ["What color is the circle?", "Which shape is on the right?", "What number is written?"]

model = neo.load_model("neo-demo")
answers = model.generate_batch([IMAGES / name for name in PICTURES], QUESTIONS, max_new_tokens=64)
for name, question, answer in zip(PICTURES, QUESTIONS, answers, strict=True):
    print(f"{name}: {question} {answer}")
