"""Named colours, and papers (backgrounds) that they can be told from."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from neo.synthetic.sample import between, chance, pick, uniform, weighted

Color = tuple[int, int, int]

COLORS = ("red", "green", "blue", "yellow", "orange", "purple", "black", "white")

# What people mean by the word: the pure values that drawing programs offer.
_PURE: dict[str, tuple[Color, ...]] = {
    "red": ((255, 0, 0), (220, 20, 60), (200, 0, 0)),
    "green": ((0, 128, 0), (0, 255, 0), (34, 139, 34), (0, 200, 80)),
    "blue": ((0, 0, 255), (30, 100, 255), (0, 0, 139)),
    "yellow": ((255, 255, 0), (255, 230, 0)),
    "orange": ((255, 165, 0), (255, 140, 0), (255, 127, 39)),
    "purple": ((128, 0, 128), (163, 73, 164), (150, 50, 200)),
    "black": ((0, 0, 0),),
    "white": ((255, 255, 255),),
}
# Ranges of hue (degrees), saturation and value around them, with gaps between neighbouring names.
_RANGES = {
    "red": ((-10, 6), (0.8, 1.0), (0.7, 1.0)),
    "green": ((95, 145), (0.65, 1.0), (0.4, 0.9)),
    "blue": ((208, 240), (0.75, 1.0), (0.55, 1.0)),
    "yellow": ((52, 60), (0.75, 1.0), (0.92, 1.0)),
    "orange": ((24, 37), (0.85, 1.0), (0.92, 1.0)),
    "purple": ((276, 300), (0.6, 1.0), (0.42, 0.72)),
    "black": ((0, 360), (0.0, 0.3), (0.0, 0.13)),
    "white": ((0, 360), (0.0, 0.03), (0.96, 1.0)),
}


def shade(rng: np.random.Generator, name: str) -> Color:
    """An RGB value that people call by this colour name."""
    if chance(rng, 0.4):
        return pick(rng, _PURE[name])
    hue, saturation, value = (uniform(rng, *bounds) for bounds in _RANGES[name])
    return hsv(hue, saturation, value)


def hsv(hue: float, saturation: float, value: float) -> Color:
    """RGB (0 to 255) of a hue in degrees and a saturation and value from 0 to 1."""
    r, g, b = colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value)
    return round(r * 255), round(g * 255), round(b * 255)


def distance(one: Color, other: Color) -> float:
    """Euclidean distance of two RGB values, 0 to 442."""
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5


def luminance(color: Color) -> float:
    """Perceived brightness, 0 to 255."""
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


_PAPERS = {"white": 0.5, "light": 0.25, "grey": 0.09, "dark": 0.08, "colored": 0.08}


def paper_color(rng: np.random.Generator, inks: Sequence[Color], minimum: float = 105) -> Color:
    """A background colour at least `minimum` away from every ink; plain white is the commonest."""
    for _ in range(12):
        kind = weighted(rng, _PAPERS)
        if kind == "white":
            color = (255, 255, 255)
        elif kind == "light":
            color = hsv(uniform(rng, 0, 360), uniform(rng, 0, 0.12), uniform(rng, 0.85, 1))
        elif kind == "grey":
            color = hsv(uniform(rng, 0, 360), uniform(rng, 0, 0.1), uniform(rng, 0.5, 0.8))
        elif kind == "dark":
            color = hsv(uniform(rng, 0, 360), uniform(rng, 0, 0.4), uniform(rng, 0.08, 0.25))
        else:
            color = hsv(uniform(rng, 0, 360), uniform(rng, 0.3, 0.7), uniform(rng, 0.5, 0.95))
        if all(distance(color, ink) >= minimum for ink in inks):
            return color
    return (128, 128, 128)  # far from all eight names


_TEXTURES = {"plain": 0.74, "gradient": 0.09, "grain": 0.05, "cloud": 0.06, "ruled": 0.06}


def paper(rng: np.random.Generator, size: tuple[int, int], color: Color) -> Image.Image:
    """A picture of this size (width, height): the colour, plain or with a light texture."""
    width, height = size
    texture = weighted(rng, _TEXTURES)
    if texture == "plain":
        return Image.new("RGB", size, color)
    base = np.array(color, dtype=np.float32)
    if texture == "gradient":
        ends = np.clip(base + rng.uniform(-25, 25, (2, 3)), 0, 255).astype(np.uint8)
        strip = Image.fromarray(ends[:, None] if chance(rng, 0.5) else ends[None])
        return strip.resize(size, Image.Resampling.BILINEAR)
    if texture == "grain":
        grain = rng.standard_normal((height, width, 1), dtype=np.float32) * uniform(rng, 2, 9)
        return Image.fromarray(np.clip(base + grain, 0, 255).astype(np.uint8))
    if texture == "cloud":
        coarse = np.clip(base + rng.uniform(-16, 16, (between(rng, 3, 8), between(rng, 3, 8), 1)), 0, 255)
        return Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    image = Image.new("RGB", size, color)
    draw = ImageDraw.Draw(image)
    step, start = between(rng, 10, 24), between(rng, 2, 10)
    step_color = -22 if luminance(color) > 100 else 22
    line = tuple(min(255, max(0, c + step_color)) for c in color)
    for y in range(start, height, step):
        draw.line((0, y, width, y), fill=line)
    if chance(rng, 0.5):
        for x in range(start, width, step):
            draw.line((x, 0, x, height), fill=line)
    return image


_SIDES = (96, 128, 160, 192, 224, 256)


def canvas(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height: four times in five 128 x 128, else 96 to 256 in another aspect."""
    if chance(rng, 0.8):
        return 128, 128
    width, height = pick(rng, _SIDES), pick(rng, _SIDES)
    if width * height > 40000:  # keep the average cost down
        width = height = 192
    if chance(rng, 0.25):
        width, height = max(96, width - between(rng, 1, 31)), max(96, height - between(rng, 1, 31))
    return width, height
