"""Ask a model about the pictures in examples/images and show what it says beside what is right.

python examples/ask_pictures.py [MODEL]
"""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

import neo

IMAGES = Path(__file__).parent / "images"


def main(name: str = "neo-demo") -> None:
    """Print a table of picture, question, answer and expected answer."""
    model = neo.load_model(name)
    asked = json.loads((IMAGES / "questions.json").read_text())
    table = Table(title=f"{name} about the pictures in examples/images", caption_justify="left")
    for column in ("picture", "question", "answer", "expected"):
        table.add_column(column, overflow="fold")
    right = 0
    for one in asked:
        answer = model.generate(image=IMAGES / one["image"], text=one["question"], max_new_tokens=64)
        agrees = answer.strip().lower().rstrip(".") == one["answer"].lower()
        right += agrees
        cells = (one["image"], one["question"], answer, one["answer"])
        table.add_row(*map(Text, cells), style="" if agrees else "yellow")  # Text: no markup in answers
    table.caption = f"{right} of {len(asked)} as expected"
    Console().print(table)


if __name__ == "__main__":
    main(*sys.argv[1:])
