"""A conversation about a picture: the second question does not show it again.

python examples/conversation.py [MODEL]

neo-demo answers short questions about drawn shapes and digits; for talk about photographs take NEO-2B-SFT.
"""

import sys
from pathlib import Path

import neo

IMAGES = Path(__file__).parent / "images"


def main(name: str = "neo-demo") -> None:
    """Print the conversation."""
    model = neo.load_model(name)
    chat = model.start_chat()
    for question, image in (
        ("What color is the circle?", IMAGES / "circle.png"),
        ("What shape is red?", None),
    ):
        print(f"> {question}")
        print(chat.ask(question, image=image, max_new_tokens=64))


if __name__ == "__main__":
    main(*sys.argv[1:])
