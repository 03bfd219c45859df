"""The tasks by which a model is measured on drawn pictures: questions of one kind, a finer division than families."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from neo.synthetic.sample import Turn


class Task(NamedTuple):
    """Questions of one kind: those of a family that `accepts` them."""

    family: str
    question: str
    """How the question reads; braces stand for a word of the picture."""
    accepts: Callable[[Turn], bool] = lambda turn: True


TASKS: Mapping[str, Task] = {
    "colour": Task("color", "What color is the {shape}?"),
    "colour, among several shapes": Task("lookup", "What color is the {shape}?"),
    "shape": Task("shape", "What shape is {color}?"),
    "position": Task("position", "Which shape is on the left?", lambda turn: turn.kind == "position"),
    "yes or no": Task("exist", "Is there a {color} {shape}?"),
    "count, 0 to 9": Task("count", "How many {shape}s are there?"),
    "handwritten digit": Task("handwritten", "Which digit is handwritten?"),
    "number, 1 to 3 digits": Task("number", "What number is written?", lambda turn: len(turn.answer) <= 3),
    "number, 4 to 6 digits": Task("number", "What number is written?", lambda turn: len(turn.answer) > 3),
    "word": Task("word", "What word is written?"),
    "chart, tallest bar": Task("chart", "Which bar is the tallest?", lambda turn: "tallest" in turn.question),
    "chart, value": Task("chart", "What is the value of {label}?", lambda turn: "value" in turn.question),
    "receipt, total": Task("receipt", "What is the total?", lambda turn: "total" in turn.question),
    "receipt, JSON": Task("receipt", "Extract the receipt as JSON.", lambda turn: "JSON" in turn.question),
    "caption": Task("caption", "Describe the image."),
    "list, left to right": Task("list", "List the shapes from left to right."),
    "text only": Task("text", "What is two plus three?"),
}
"""Tasks by name, in the order of the table."""
