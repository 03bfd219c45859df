"""Show the model a few answered pictures before the question: the cheapest way to a form of answer.

python examples/few_shot.py [MODEL]

neo-demo is too small to learn from examples, which its training did not have: it answers in its own way. From
NEO-2B-SFT on, models copy the form of the examples; for a new task, fine-tuning (finetune_and_compare.py) does more.
"""

import sys
from pathlib import Path

import neo

IMAGES = Path(__file__).parent / "images"
QUESTION = "Which shapes are there?"
EXAMPLES = [
    (IMAGES / "circle.png", QUESTION, "1 circle"),
    (IMAGES / "stars.png", QUESTION, "4 stars"),
]
"""Picture, question, answer."""


def main(name: str = "neo-demo") -> None:
    """Print the answer without and with examples."""
    model = neo.load_model(name)
    for examples in ((), EXAMPLES):
        answer = model.generate(image=IMAGES / "two_shapes.png", text=QUESTION, examples=examples, max_new_tokens=64)
        print(f"with {len(examples)} examples: {answer}")


if __name__ == "__main__":
    main(*sys.argv[1:])
