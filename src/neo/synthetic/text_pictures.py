"""Pictures of writing: numbers, words, and scans of handwritten digits."""

import functools
import string
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from neo.synthetic.degrade import degrade
from neo.synthetic.fonts import FONTS, font
from neo.synthetic.palette import COLORS, Color, canvas, luminance, paper, paper_color, shade
from neo.synthetic.sample import Turn, asked, between, chance, pick, uniform, weighted
from neo.synthetic.words import WORDS

_LENGTHS = {"1": 0.2, "2": 0.24, "3": 0.24, "4": 0.14, "5": 0.1, "6": 0.08}


@dataclass(frozen=True)
class Writing:
    """A number or word (`kind`), its answer, the text as written (in any case), the ink's colour name."""

    kind: str
    answer: str
    text: str
    ink: str


def number(rng: np.random.Generator) -> Writing:
    """A number of 1 to 6 digits without leading zero."""
    length = int(weighted(rng, _LENGTHS))
    digits = "".join(pick(rng, string.digits[1:] if i == 0 and length > 1 else string.digits) for i in range(length))
    return Writing("number", digits, digits, ink_name(rng))


def word(rng: np.random.Generator) -> Writing:
    """A common word, or one time in six random letters; lower case, capitalised or upper case."""
    text = pick(rng, WORDS)
    if chance(rng, 0.17):
        text = "".join(pick(rng, string.ascii_lowercase) for _ in range(between(rng, 2, 6)))
    case = rng.random()
    written = text if case < 0.5 else text.capitalize() if case < 0.7 else text.upper()
    return Writing("word", text, written, ink_name(rng))


def ink_name(rng: np.random.Generator) -> str:
    """The colour name of an ink, every other time black."""
    return "black" if chance(rng, 0.45) else pick(rng, COLORS)


def writing_turns(rng: np.random.Generator, writing: Writing, plain: bool) -> list[Turn]:
    """The question for the whole text, sometimes with one about its length, first or last sign."""
    kind, answer = writing.kind, writing.answer
    others = {
        "number": [
            "Which number is written?",
            "Read the number.",
            "What number is this?",
            "What number do you see?",
        ],
        "word": ["Which word is written?", "Read the word.", "What does it say?", "What word do you see?"],
    }[kind]
    turns = [Turn(asked(rng, f"What {kind} is written?", others, plain), answer, kind)]
    if not plain and chance(rng, 0.4):
        unit = {"number": "digit", "word": "letter"}[kind]
        extra = between(rng, 0, 2)
        if extra == 0:
            turns.insert(0, Turn(f"How many {unit}s are there?", str(len(answer)), kind))
        else:
            place, sign = (("first", answer[0]), ("last", answer[-1]))[extra - 1]
            turns.insert(0, Turn(f"What is the {place} {unit}?", sign, kind))
    return turns + _ink_turns(rng, kind, writing.ink, plain)


def _ink_turns(rng: np.random.Generator, noun: str, ink: str, plain: bool) -> list[Turn]:
    """Now and then the question for the colour of the writing."""
    return [Turn(f"What color is the {noun}?", ink, "color")] if not plain and chance(rng, 0.15) else []


def describe_writing(rng: np.random.Generator, writing: Writing) -> str:
    """The picture in words."""
    return f"The {writing.kind} {writing.answer} is written."


def ink_and_paper(rng: np.random.Generator, name: str) -> tuple[Color, Color]:
    """An ink of this colour name and a paper that differs clearly in brightness."""
    ink = shade(rng, name)
    for _ in range(8):
        ground = paper_color(rng, [ink])
        if abs(luminance(ground) - luminance(ink)) > 95:
            return ink, ground
    return ink, ((255, 255, 255) if luminance(ink) < 128 else (15, 15, 15))


def draw_writing(rng: np.random.Generator, writing: Writing) -> Image.Image:
    """The text in one line in a random font, size, place and slight rotation, as an RGB picture."""
    width, height = canvas(rng)
    name = pick(rng, FONTS)
    probe = font(name, 40).getbbox(writing.text)
    largest = 40 * 0.92 * min(width / (probe[2] - probe[0]), height / (probe[3] - probe[1]))
    largest = min(largest, 110.0 if len(writing.text) <= 2 else 84.0)
    # In steps of two, so that the cache of fonts stays small.
    size = 2 * round(uniform(rng, min(max(18.0, 0.55 * largest), largest), largest) / 2)
    left, top, right, bottom = font(name, size).getbbox(writing.text)
    mask = Image.new("L", (round(right - left) + 4, round(bottom - top) + 4))
    ImageDraw.Draw(mask).text((2 - left, 2 - top), writing.text, fill=255, font=font(name, size))
    if chance(rng, 0.3):
        rotated = mask.rotate(uniform(rng, -10, 10), Image.Resampling.BICUBIC, expand=True)
        if rotated.width <= width and rotated.height <= height:
            mask = rotated
    ink, ground = ink_and_paper(rng, writing.ink)
    image = paper(rng, (width, height), ground)
    place = between(rng, 0, max(0, width - mask.width)), between(rng, 0, max(0, height - mask.height))
    image.paste(ink, place, mask)
    return degrade(rng, image, fine=size < 34)


@dataclass(frozen=True)
class Scan:
    """One handwritten digit: 10 x 10 pixels with an empty margin, 0 (paper) to 16 (ink), and what it is."""

    pixels: np.ndarray
    digit: int


@functools.cache
def scans(split: str) -> tuple[Scan, ...]:
    """The scans of scikit-learn's digits set in one split: one in five is for test, by a fixed draw.

    Raises ImportError when scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('Handwritten digits need scikit-learn: pip install "neo-vlm[train]".') from error
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    cut = len(order) // 5
    rows = order[:cut] if split == "test" else order[cut:]
    return tuple(Scan(np.pad(digits.images[row], 1).astype(np.uint8), int(digits.target[row])) for row in rows)


def handwritten(rng: np.random.Generator, split: str) -> tuple[Scan, str]:
    """A scan of the split and the colour name of its ink."""
    return pick(rng, scans(split)), ink_name(rng)


def handwritten_turns(rng: np.random.Generator, scan: Scan, ink: str, plain: bool) -> list[Turn]:
    """The question for the digit, now and then with the one for its colour."""
    others = ["What digit is this?", "Which digit do you see?", "What digit is written?", "Read the digit."]
    turn = Turn(asked(rng, "Which digit is handwritten?", others, plain), str(scan.digit), "handwritten")
    return [turn, *_ink_turns(rng, "digit", ink, plain)]


def draw_handwritten(rng: np.random.Generator, scan: Scan, ink_color: str) -> Image.Image:
    """The scan enlarged smoothly, slightly turned, in ink on paper."""
    width, height = (128, 128) if chance(rng, 0.7) else canvas(rng)
    side = between(rng, 76, min(width, height, 160))
    gain = uniform(rng, 15, 20)
    small = Image.fromarray(np.minimum(scan.pixels.astype(np.float32) * gain, 255).astype(np.uint8))
    aspect = uniform(rng, 0.85, 1.0)
    mask = small.resize((round(side * aspect), side), Image.Resampling.BICUBIC)
    if chance(rng, 0.5):
        mask = mask.rotate(uniform(rng, -12, 12), Image.Resampling.BILINEAR)
    if chance(rng, 0.6):  # a firm stroke instead of a soft one, as a pen leaves it
        middle, slope = uniform(rng, 90, 140), uniform(rng, 2, 6)
        mask = mask.point([round(min(255, max(0, 127 + slope * (v - middle)))) for v in range(256)])
    ink, ground = ink_and_paper(rng, ink_color)
    image = paper(rng, (width, height), ground)
    image.paste(ink, (between(rng, 0, width - mask.width), between(rng, 0, height - mask.height)), mask)
    return degrade(rng, image)
