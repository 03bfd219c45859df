"""Ask one question about one picture.

python examples/image_qa.py [PICTURE [QUESTION [MODEL]]]

neo-demo knows drawn shapes, their colours and places, handwritten digits and short numbers; it has never seen a
photograph. For photographs, screenshots and pages take NEO-2B-SFT or NEO-9B-SFT (see README.md for downloading them).
"""

import sys
from pathlib import Path

import neo

IMAGES = Path(__file__).parent / "images"


def main(
    picture: str = str(IMAGES / "two_shapes.png"),
    question: str = "Which shape is on the left?",
    name: str = "neo-demo",
) -> None:
    """Print the answer."""
    print(neo.load_model(name).generate(image=picture, text=question, max_new_tokens=128))


if __name__ == "__main__":
    main(*sys.argv[1:])
