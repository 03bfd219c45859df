"""Receipts of a few short lines."""

import json
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from neo.synthetic.degrade import degrade
from neo.synthetic.fonts import font
from neo.synthetic.palette import hsv
from neo.synthetic.sample import Turn, asked, between, chance, pick, shuffled, uniform
from neo.synthetic.words import GOODS, STORES


@dataclass(frozen=True)
class Receipt:
    """The store and the items with their prices in cents."""

    store: str
    items: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """The sum in cents."""
        return sum(price for _, price in self.items)

    def json(self) -> str:
        """The receipt as compact JSON, prices as text with two decimals."""
        items = [{"name": name, "price": money(price)} for name, price in self.items]
        return json.dumps({"store": self.store, "items": items, "total": money(self.total)}, separators=(",", ":"))


def money(cents: int) -> str:
    """An amount with two decimals."""
    return f"{cents // 100}.{cents % 100:02d}"


def receipt(rng: np.random.Generator) -> Receipt:
    """One to three items."""
    names = shuffled(rng, GOODS)[: pick(rng, (1, 2, 2, 3))]
    return Receipt(pick(rng, STORES), tuple((name, 10 * between(rng, 5, 99)) for name in names))


def receipt_turns(rng: np.random.Generator, spec: Receipt, plain: bool) -> list[Turn]:
    """The total, the whole as JSON, and less often one price or the store."""
    total = asked(rng, "What is the total?", ["How much is the total?", "What does it cost in total?"], plain)
    extract = ["Extract the receipt as JSON", "Give me the receipt as JSON.", "Read the receipt as JSON."]
    turns = [Turn(total, money(spec.total), "receipt")]
    if not plain and chance(rng, 0.35):
        name, price = pick(rng, spec.items)
        extra = ((f"How much is the {name}?", money(price)), ("What is the store?", spec.store))
        turns.append(Turn(*pick(rng, extra), "receipt"))
    turns.append(Turn(asked(rng, "Extract the receipt as JSON.", extract, plain), spec.json(), "receipt"))
    return turns


def describe_receipt(rng: np.random.Generator, spec: Receipt) -> str:
    """The receipt in words."""
    lines = [
        spec.store,
        *(f"{name} {money(price)}" for name, price in spec.items),
        f"Total {money(spec.total)}",
    ]
    return pick(rng, ("\n", ", ")).join(lines)


def draw_receipt(rng: np.random.Generator, spec: Receipt) -> Image.Image:
    """The receipt as an RGB picture: store, items, total."""
    width = pick(rng, (128, 160, 160, 192))
    rows = len(spec.items) + 2
    height = pick(rng, (128, 160, 192)) if rows <= 4 else pick(rng, (160, 192))
    name = pick(rng, ("DejaVuSans", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif", "pillow"))
    longest = max([f"{item}  {money(price)}" for item, price in spec.items] + [spec.store, "TOTAL  00.00"], key=len)
    size = next(s for s in (18, 16, 15, 14, 13, 12, 11, 10) if font(name, s).getlength(longest) < width - 16 or s == 10)
    size = max(11, size - between(rng, 0, 2))
    grey = uniform(rng, 0.93, 1)
    ground = (255, 255, 255) if chance(rng, 0.5) else hsv(uniform(rng, 30, 60), uniform(rng, 0, 0.08), grey)
    ink = (0, 0, 0) if chance(rng, 0.6) else hsv(uniform(rng, 0, 360), 0.3, uniform(rng, 0.1, 0.25))
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    text = font(name, size)
    step = min(size * uniform(rng, 1.35, 1.7), (height - 14) / (rows + 0.7))
    left, right = between(rng, 4, 8), width - between(rng, 4, 8)
    y = uniform(rng, 3, max(4, height - 8 - step * (rows + 0.7)))
    draw.text((width / 2, y), spec.store, fill=ink, font=text, anchor="ma")
    y += step * 1.25
    for item, price in spec.items:
        draw.text((left, y), item, fill=ink, font=text, anchor="la")
        draw.text((right, y), money(price), fill=ink, font=text, anchor="ra")
        y += step
    y += 0.2 * step
    draw.line((left, y, right, y), fill=ink)
    y += 0.25 * step
    draw.text((left, y), pick(rng, ("TOTAL", "Total", "Total:")), fill=ink, font=text, anchor="la")
    draw.text((right, y), money(spec.total), fill=ink, font=text, anchor="ra")
    return degrade(rng, image, fine=True)
