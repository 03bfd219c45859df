"""A conversation about a picture: the second question does not show it again.

python examples/conversation.py
"""

from pathlib import Path

import neo

IMAGES = Path(__file__).parent / "images"

model = neo.load_model("neo-demo")
chat = model.start_chat()
for question, image in (
    ("What color is the circle?", IMAGES / "circle.png"),
    ("What shape is red?", None),
):
    print(f"> {question}")
    print(chat.ask(question, image=image, max_new_tokens=64))
