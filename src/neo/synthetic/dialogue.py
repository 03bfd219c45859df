"""Conversations without a picture: greetings, facts, arithmetic, copying, pictures in words."""

import string
from collections.abc import Callable

import numpy as np

from neo.synthetic.chart import chart, chart_turns, describe_chart
from neo.synthetic.palette import COLORS
from neo.synthetic.receipt import describe_receipt, receipt, receipt_turns
from neo.synthetic.sample import Turn, article, asked, between, chance, pick, shuffled
from neo.synthetic.scene import SHAPES, crowd, few, pair, single
from neo.synthetic.scene_questions import NUMBER_WORDS, Candidate, describe_scene, listed, scene_turns
from neo.synthetic.text_pictures import describe_writing, number, word, writing_turns
from neo.synthetic.words import WORDS

_ABILITIES = "I can name colors and shapes, count, read numbers and words, and read simple charts and receipts."
_FIXED = (
    (("Hello!", "Hi!", "Hello", "Hi", "Hey", "Good morning!", "Hi there!"), "Hello! How can I help?"),
    (("How are you?", "How are you doing?", "Are you well?"), "I am fine, thank you."),
    (("Who are you?", "What are you?", "What is your name?"), "I am NEO, a small vision-language model."),
    (("What can you do?", "How can you help me?", "What do you know?"), _ABILITIES),
    (("Thank you!", "Thanks!", "Thanks", "Thank you"), "You are welcome!"),
    (("Goodbye!", "Bye!", "Bye", "See you!"), "Goodbye!"),
    (("Are you a human?", "Are you a person?"), "No, I am a small model."),
    (("Can you see pictures?", "Can you see?"), "Yes, send me a picture and ask."),
    (("Can you make mistakes?", "Are you always right?"), "I can be wrong. I am a small model."),
    (("Which colors do you know?",), "I know red, green, blue, yellow, orange, purple, black and white."),
    (("Which shapes do you know?",), "I know circle, square, triangle and star."),
)
_UNKNOWN = (
    "Who won the game?",
    "What is the weather today?",
    "Who is the president?",
    "What time is it?",
    "Where do I live?",
    "What did I eat today?",
    "Write a poem.",
    "How old am I?",
)
_SIDES = {"circle": "0", "square": "4", "triangle": "3"}
_FACTS = (
    ("What color is the sky?", "blue"),
    ("What color is grass?", "green"),
    ("What color is snow?", "white"),
    ("What color is coal?", "black"),
    ("What color is a lemon?", "yellow"),
    ("What color is blood?", "red"),
    ("What color is a carrot?", "orange"),
    ("What color is milk?", "white"),
    ("What color is a tomato?", "red"),
    ("What color do red and yellow make?", "orange"),
    ("What color do blue and yellow make?", "green"),
    ("What color do red and blue make?", "purple"),
    ("How many days are in a week?", "7"),
    ("How many legs does a dog have?", "4"),
    ("How many legs does a bird have?", "2"),
    ("How many fingers are on one hand?", "5"),
    ("Which shape is round?", "circle"),
    ("Which shape has three sides?", "triangle"),
    ("Which shape has four sides?", "square"),
    ("How many points does a star have?", "5"),
)


def _talk(rng: np.random.Generator, plain: bool) -> tuple[str, str]:
    questions, answer = pick(rng, _FIXED)
    return (questions[0] if plain else pick(rng, questions)), answer


def _unknown(rng: np.random.Generator, plain: bool) -> tuple[str, str]:
    return pick(rng, _UNKNOWN), "I do not know that."


def _no_picture(rng: np.random.Generator, plain: bool) -> tuple[str, str]:
    shape, color = pick(rng, SHAPES), pick(rng, COLORS)
    questions = (
        f"What color is the {shape}?",
        f"What shape is {color}?",
        f"How many {shape}s are there?",
        "Describe the image.",
        "What number is written?",
        "What word is written?",
        "What is the total?",
    )
    return pick(rng, questions), "I see no picture."


def _fact(rng: np.random.Generator, plain: bool) -> tuple[str, str]:
    choice = rng.random()
    if choice < 0.7:
        return pick(rng, _FACTS)
    if choice < 0.8:
        shape = pick(rng, tuple(_SIDES))
        return f"How many sides does {article(shape)} have?", _SIDES[shape]
    name, is_color = (pick(rng, COLORS), True) if chance(rng, 0.5) else (pick(rng, SHAPES), False)
    return f"Is {name} a color or a shape?", "a color" if is_color else "a shape"


def _sum(rng: np.random.Generator, plain: bool) -> tuple[str, str]:
    a, b = between(rng, 0, 10), between(rng, 0, 10)
    if chance(rng, 0.6):
        form = asked(rng, "What is {} plus {}?", ["{} + {} =", "How much is {} plus {}?"], plain)
        return form.format(a, b), str(a + b)
    a, b = max(a, b), min(a, b)
    form = asked(rng, "What is {} minus {}?", ["{} - {} =", "How much is {} minus {}?"], plain)
    return form.format(a, b), str(a - b)


def _compare(rng: np.random.Generator, plain: bool) -> tuple[str, str]:
    a = between(rng, 0, 99)
    b = (a + between(rng, 1, 98)) % 100
    if chance(rng, 0.4):
        return f"What number comes after {a}?", str(a + 1)
    return (
        (f"Which is more, {a} or {b}?", str(max(a, b)))
        if chance(rng, 0.5)
        else (
            f"Which is less, {a} or {b}?",
            str(min(a, b)),
        )
    )


def _spelling(rng: np.random.Generator, plain: bool) -> tuple[str, str]:
    text = pick(rng, WORDS)
    choice = between(rng, 0, 3)
    if choice == 0:
        return f"Spell the word {text}.", " ".join(text)
    if choice == 1:
        return f"How many letters are in {text}?", str(len(text))
    if choice == 2:
        return f"What is the first letter of {text}?", text[0]
    return f"What word is spelled {' '.join(text)}?", text


def _copy(rng: np.random.Generator, plain: bool) -> tuple[str, str]:
    choice = between(rng, 0, 3)
    if choice == 0:
        text = "".join(pick(rng, string.digits) for _ in range(between(rng, 1, 6)))
    elif choice == 1:
        text = "".join(pick(rng, string.ascii_lowercase) for _ in range(between(rng, 2, 6)))
    else:
        text = " ".join(pick(rng, WORDS) for _ in range(between(rng, 1, 4)))
    return asked(rng, "Repeat: {}", ["Say {}", "Copy this: {}"], plain).format(text), text


def _counting(rng: np.random.Generator, plain: bool) -> tuple[str, str]:
    choice = between(rng, 0, 2)
    if choice == 0:
        end = between(rng, 2, 9)
        return f"Count to {end}.", " ".join(str(i) for i in range(1, end + 1))
    if choice == 1:
        i = between(rng, 0, 11)
        return f"Write {NUMBER_WORDS[i].lower()} as a number.", str(i)
    names = [pick(rng, SHAPES[:2]) for _ in range(between(rng, 1, 6))]
    return f"{' '.join(names)}\nHow many circles are there?", str(names.count("circle"))


_TOPICS: tuple[Callable[[np.random.Generator, bool], tuple[str, str]], ...] = (
    _talk, _talk, _unknown, _no_picture, _fact, _fact, _sum, _sum, _compare, _spelling, _copy, _copy,
    _counting,
)  # fmt: skip


def text_turns(rng: np.random.Generator, plain: bool) -> list[Turn]:
    """One to three turns of conversation without a picture; one when `plain`."""
    number_of_turns = 1 if plain else pick(rng, (1, 1, 2, 3))
    return [Turn(*pick(rng, _TOPICS)(rng, plain), "text") for _ in range(number_of_turns)]


def described(rng: np.random.Generator, plain: bool = False) -> tuple[str, list[Turn]]:
    """A scene, writing, chart or receipt in words, and what is asked about it (kinds as with the picture)."""
    topic = pick(rng, ("scene", "scene", "scene", "position", "number", "word", "chart", "receipt", "digit"))
    candidates: list[Candidate] = []
    if topic == "scene":
        scene = pick(rng, (single, few, pair, crowd))(rng)
        for kind in shuffled(rng, ("color", "shape", "count", "exist")):
            candidates += scene_turns(rng, scene, kind, plain)
        return describe_scene(rng, scene), compatible(candidates)
    if topic == "position":
        scene = pair(rng)
        across = " on the left " in (text := describe_scene(rng, scene))
        candidates = scene_turns(rng, scene, "position", plain)
        sides = ("left", "right") if across else ("top", "bottom")
        candidates = [c for c in candidates if any(f" {side}?" in c[0].question for side in sides)]
        return text, compatible([*candidates, *scene_turns(rng, scene, "color", plain)])
    if topic in ("number", "word"):
        writing = number(rng) if topic == "number" else word(rng)
        return describe_writing(rng, writing), writing_turns(rng, writing, plain)
    if topic == "digit":
        digit = between(rng, 0, 9)
        turn = Turn("Which digit is handwritten?", str(digit), "handwritten")
        return f"The digit {digit} is handwritten.", [turn]
    if topic == "chart":
        bars = chart(rng)
        return describe_chart(rng, bars), chart_turns(rng, bars, plain)
    bill = receipt(rng)
    return describe_receipt(rng, bill), receipt_turns(rng, bill, plain)


def described_turns(rng: np.random.Generator, plain: bool) -> list[Turn]:
    """A described picture as a conversation: the words are the start of the first question."""
    text, turns = described(rng, plain)
    turns = turns[: 1 if plain else between(rng, 1, 3)]
    first = Turn(f"{text}\n{turns[0].question}", turns[0].answer, "described")
    return [first, *(Turn(turn.question, turn.answer, "described") for turn in turns[1:])]


def compatible(candidates: list[Candidate]) -> list[Turn]:
    """The first candidates, in order, of which none gives away the answer of another."""
    known: set[object] = set()
    turns = []
    for turn, facts in candidates:
        if not known & facts:
            turns.append(turn)
            known |= facts
    return turns


def passage(rng: np.random.Generator) -> str:
    """A few lines of plain text with the words, numbers and formats of all families."""
    choice = rng.random()
    if choice < 0.55:
        text, turns = described(rng)
        return "\n".join([text, *(f"{turn.question} {turn.answer}" for turn in turns[: between(rng, 1, 3)])])
    if choice < 0.8:
        return "\n".join(f"{turn.question} {turn.answer}" for turn in text_turns(rng, False))
    if choice < 0.9:
        return " ".join(pick(rng, WORDS) for _ in range(between(rng, 3, 12)))
    things = [article(f"{pick(rng, COLORS)} {pick(rng, SHAPES)}") for _ in range(between(rng, 1, 4))]
    return f"I see {listed(things)}."
