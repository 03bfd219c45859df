"""Bar charts."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from neo.synthetic.degrade import degrade
from neo.synthetic.fonts import SMALL, font
from neo.synthetic.palette import COLORS, hsv, shade
from neo.synthetic.sample import Turn, asked, between, chance, pick, shuffled, uniform
from neo.synthetic.words import DAYS, FRUITS, LETTERS, MONTHS, PETS, TOWNS

SHORT_LABELS = (LETTERS, LETTERS, PETS, MONTHS, DAYS)
LABELS = (*SHORT_LABELS, FRUITS, TOWNS)


@dataclass(frozen=True)
class Chart:
    """Labels of the bars and their values (whole numbers, the largest and the smallest once each)."""

    labels: tuple[str, ...]
    values: tuple[int, ...]


def chart(rng: np.random.Generator) -> Chart:
    """Two to five bars."""
    number = between(rng, 2, 5)
    labels = shuffled(rng, pick(rng, LABELS if number <= 3 else SHORT_LABELS))[:number]
    step = pick(rng, (1, 1, 5, 10))
    top = pick(rng, (10, 20)) if step == 1 else 10
    return Chart(tuple(labels), tuple(step * int(v) for v in rng.permutation(top)[:number] + 1))


def chart_turns(rng: np.random.Generator, spec: Chart, plain: bool) -> list[Turn]:
    """Questions about the tallest bar, the values, and less often the shortest bar and the number of bars."""
    tallest = spec.labels[spec.values.index(max(spec.values))]
    others = ["Which bar is the highest?", "Which bar is the largest?", "What is the tallest bar?"]
    turns = [Turn(asked(rng, "Which bar is the tallest?", others, plain), tallest, "chart")]
    for i in shuffled(rng, range(len(spec.labels)))[:2]:
        label = spec.labels[i]
        others = [
            f"What value does {label} have?",
            f"How much is {label}?",
            f"What is the value of the bar {label}?",
        ]
        question = asked(rng, f"What is the value of {label}?", others, plain)
        turns.append(Turn(question, str(spec.values[i]), "chart"))
    if not plain and chance(rng, 0.25):
        shortest = spec.labels[spec.values.index(min(spec.values))]
        extra = (
            ("Which bar is the shortest?", shortest),
            ("How many bars are there?", str(len(spec.labels))),
        )
        turns.append(Turn(*pick(rng, extra), "chart"))
    return turns


def describe_chart(rng: np.random.Generator, spec: Chart) -> str:
    """The chart in words."""
    return "Bar chart: " + ", ".join(f"{a} {b}" for a, b in zip(spec.labels, spec.values, strict=True)) + "."


def draw_chart(rng: np.random.Generator, spec: Chart) -> Image.Image:
    """The chart as an RGB picture: values above the bars, an axis with lines, or both."""
    number = len(spec.labels)
    wide = number > 3 or sum(map(len, spec.labels)) > 12
    width = pick(rng, (160, 192, 192)) if wide else pick(rng, (128, 160, 192))
    height = pick(rng, (128, 160, 160, 192))
    dark = chance(rng, 0.1)
    ground = hsv(uniform(rng, 0, 360), uniform(rng, 0, 0.08), uniform(rng, 0.94, 1))
    if dark or chance(rng, 0.5):
        ground = (30, 30, 34) if dark else (255, 255, 255)
    ink = (235, 235, 235) if dark else (20, 20, 20)
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    highest = max(spec.values)
    # Without values on the bars, a bar can be read only where it ends at a line.
    printed = chance(rng, 0.75) or highest > 10
    axis = not printed or chance(rng, 0.3)
    name = pick(rng, SMALL)
    left, right = (26 if axis else 6), width - 4
    floor, ceiling = height - 20, 20 if printed else 10
    slot = (right - left) / number
    size = _fitting(name, spec.labels, slot)
    scale = (floor - ceiling) / (highest if printed else 10)
    if axis:
        step = 2 if not printed else max(1, -(-highest // 5))
        for value in range(0, highest + 1 if printed else 11, step):
            y = round(floor - value * scale)
            draw.line((left, y, right, y), fill=(95, 95, 95) if dark else (205, 205, 205))
            draw.text((left - 3, y), str(value), fill=ink, font=font(name, 11), anchor="rm")
    names = [c for c in COLORS if c not in ("black", "white", *(("blue", "purple") if dark else ()))]
    colors = shuffled(rng, names) if chance(rng, 0.5) else [pick(rng, names)] * number
    shades = {color: shade(rng, color) for color in names}
    bar = slot * uniform(rng, 0.5, 0.8)
    for i, (label, value) in enumerate(zip(spec.labels, spec.values, strict=True)):
        center = left + (i + 0.5) * slot
        top = floor - value * scale
        edge = ink if chance(rng, 0.2) else None
        draw.rectangle(
            (center - bar / 2, top, center + bar / 2, floor),
            fill=shades[colors[i % len(colors)]],
            outline=edge,
        )
        draw.text((center, floor + 3), label, fill=ink, font=font(name, size), anchor="ma")
        if printed:
            draw.text((center, top - 2), str(value), fill=ink, font=font(name, max(size, 12)), anchor="mb")
    draw.line((left, floor, right, floor), fill=ink)
    if axis:
        draw.line((left, ceiling - 6, left, floor), fill=ink)
    return degrade(rng, image, fine=True)


def _fitting(name: str, labels: tuple[str, ...], slot: float) -> int:
    """The largest of a few font sizes at which every label fits its slot."""
    for size in (14, 13, 12, 11, 10):
        if all(font(name, size).getlength(label) < slot - 5 for label in labels):
            return size
    return 9
