"""A sheet of samples to look at."""

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw

from neo.synthetic.fonts import font
from neo.synthetic.generate import FAMILIES, generate
from neo.synthetic.sample import Sample

_CARD_WIDTH, _GROUND = 262, (250, 250, 250)


def contact_sheet(path: str | Path, seed: int = 0, per_family: int = 6, split: str = "test") -> None:
    """Saves a PNG with one row per family: pictures, and under each its questions and answers."""
    rows = [[_card(generate(seed, i, split, {family: 1.0})) for i in range(per_family)] for family in FAMILIES]
    heights = [max(card.height for card in row) + 12 for row in rows]
    sheet = Image.new("RGB", (_CARD_WIDTH * per_family, sum(heights)), _GROUND)
    for number, row in enumerate(rows):
        for column, card in enumerate(row):
            sheet.paste(card, (column * _CARD_WIDTH, sum(heights[:number])))
    sheet.save(path)


def _card(sample: Sample) -> Image.Image:
    """The picture with its conversation below."""
    lines: list[str] = []
    for turn in sample.turns:
        lines += textwrap.wrap(turn.question, 40) + textwrap.wrap("→ " + turn.answer, 40)
    top = 0 if sample.image is None else sample.image.height + 8
    card = Image.new("RGB", (_CARD_WIDTH, top + 14 * len(lines) + 8), _GROUND)
    draw = ImageDraw.Draw(card)
    if sample.image is not None:
        draw.rectangle((3, 3, sample.image.width + 4, sample.image.height + 4), outline="#999999")
        card.paste(sample.image, (4, 4))
    draw.text((4, top), "\n".join(lines), fill="black", font=font("DejaVuSans", 11), spacing=2)
    return card
