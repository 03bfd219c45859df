"""Scenes of coloured shapes: what is where, and how it is drawn."""

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from neo.synthetic.degrade import degrade
from neo.synthetic.palette import COLORS, Color, canvas, distance, luminance, paper, paper_color, shade
from neo.synthetic.sample import between, chance, pick, shuffled, uniform, weighted

SHAPES = ("circle", "square", "triangle", "star")


@dataclass(frozen=True)
class Shape:
    """A shape: its name, colour name, centre and outer radius in pixels."""

    name: str
    color: str
    x: float
    y: float
    r: float


@dataclass(frozen=True)
class Scene:
    """Shapes that do not overlap on a canvas of width x height pixels."""

    width: int
    height: int
    shapes: tuple[Shape, ...]
    counted: str | None = None
    """The shape of which the scene is meant to be asked how many there are, none where it does not matter."""


def single(rng: np.random.Generator) -> Scene:
    """One shape, mostly big."""
    width, height = canvas(rng)
    short = min(width, height)
    r = short * (uniform(rng, 0.3, 0.47) if chance(rng, 0.65) else uniform(rng, 0.12, 0.3))
    x, y = uniform(rng, r + 1, width - r - 1), uniform(rng, r + 1, height - r - 1)
    return Scene(width, height, (Shape(pick(rng, SHAPES), pick(rng, COLORS), x, y, r),))


def pair(rng: np.random.Generator, distinct: bool = True) -> Scene:
    """Two shapes, clearly beside each other or one above the other."""
    width, height = canvas(rng)
    across = chance(rng, 0.5)
    long, short = (width, height) if across else (height, width)
    names = shuffled(rng, SHAPES)[:2] if distinct else [pick(rng, SHAPES) for _ in range(2)]
    colors = shuffled(rng, COLORS)[:2] if chance(rng, 0.85) else [pick(rng, COLORS)] * 2
    largest = min(0.23 * long, 0.45 * short)
    shapes = []
    for number in range(2):
        r = uniform(rng, max(8, 0.45 * largest), largest)
        along = uniform(rng, r + 1, 0.49 * long - r) if number == 0 else uniform(rng, 0.51 * long + r, long - r - 1)
        middle = uniform(rng, -0.1, 0.1) * short
        side = min(max(0.5 * short + middle, r + 1), short - r - 1)
        x, y = (along, side) if across else (side, along)
        shapes.append(Shape(names[number], colors[number], x, y, r))
    return Scene(width, height, tuple(shuffled(rng, shapes)))


def few(rng: np.random.Generator, low: int = 2) -> Scene:
    """Two to four shapes anywhere, mostly all of another kind and colour."""
    number = between(rng, low, 4)
    names = shuffled(rng, SHAPES)[:number] if chance(rng, 0.7) else [pick(rng, SHAPES) for _ in range(number)]
    colors = shuffled(rng, COLORS)[:number] if chance(rng, 0.8) else [pick(rng, COLORS) for _ in range(number)]
    return _scatter(rng, names, colors, 0.11, 0.22)


def crowd(rng: np.random.Generator, mixed: float = 0.35) -> Scene:
    """Zero to nine of one shape (each number equally likely), with probability `mixed` others among them."""
    target, number = pick(rng, SHAPES), between(rng, 0, 9)
    others = [name for name in SHAPES if name != target]
    extra = between(rng, 1, min(4, 11 - number)) if chance(rng, mixed if number else min(1, 2 * mixed)) else 0
    names = [target] * number + [pick(rng, others) for _ in range(extra)]
    if chance(rng, 0.5):
        colors = [pick(rng, COLORS)] * len(names)
    else:
        palette = shuffled(rng, COLORS)[: between(rng, 2, 5)]
        colors = [pick(rng, palette) for _ in names]
    scene = _scatter(rng, names, colors, 0.075, 0.14 if len(names) > 5 else 0.19)
    return replace(scene, counted=target)


def _scatter(rng: np.random.Generator, names: list[str], colors: list[str], low: float, high: float) -> Scene:
    """Shapes at random places without touching; radii from low to high of the canvas' short side."""
    width, height = canvas(rng)
    short = min(width, height)
    alike = chance(rng, 0.6)
    scale = 1.0
    while True:
        placed: list[Shape] = []
        r = short * uniform(rng, low, high) * scale
        for name, color in zip(names, colors, strict=True):
            r = r if alike else short * uniform(rng, low, high) * scale
            for _ in range(25):
                x, y = uniform(rng, r + 1, width - r - 1), uniform(rng, r + 1, height - r - 1)
                if all(math.hypot(x - s.x, y - s.y) > r + s.r + 3 for s in placed):
                    placed.append(Shape(name, color, x, y, r))
                    break
            else:
                break
        if len(placed) == len(names):
            return Scene(width, height, tuple(shuffled(rng, placed)))
        scale *= 0.92


_STYLES = {"filled": 0.58, "outlined": 0.15, "doodle": 0.17, "stroke": 0.1}


def draw_scene(rng: np.random.Generator, scene: Scene) -> Image.Image:
    """The scene as an RGB picture, in a random style on a random background."""
    shades = {name: shade(rng, name) for name in sorted({shape.color for shape in scene.shapes})}
    style = weighted(rng, _STYLES)
    size = scene.width, scene.height
    ground = paper_color(rng, list(shades.values()))
    hand = style in ("doodle", "stroke")
    image = paper(rng, size, ground)
    pencil = (30, 30, 30) if chance(rng, 0.6) else None
    width = uniform(rng, 0.02, 0.045) * min(size)
    for shape in scene.shapes:
        ink = shades[shape.color]
        points = _outline(rng, shape, hand)
        if style == "stroke" and shape.r >= 10:
            _paint(image, points, None, ink, max(2.5, width))
        elif style == "outlined":
            edge: Color = pencil or (round(ink[0] * 0.5), round(ink[1] * 0.5), round(ink[2] * 0.5))
            if distance(edge, ground) < 60:
                edge = (235, 235, 235) if luminance(ground) < 100 else (0, 0, 0)
            _paint(image, points, ink, edge, min(0.5 * width, 0.12 * shape.r))
        else:
            _paint(image, points, ink, None, 0)
    return degrade(rng, image)


def _outline(rng: np.random.Generator, shape: Shape, hand: bool) -> list[tuple[float, float]]:
    """The corners of a shape in pixels; with `hand` as drawn by hand, wobbling."""
    turn = uniform(rng, -0.2, 0.2) if chance(rng, 0.7) else uniform(rng, -math.pi, math.pi)
    r = shape.r * 0.97
    if shape.name == "circle":
        corners = [(0.9 * r, i * math.tau / 40) for i in range(40)]
    elif shape.name == "square":
        turn = uniform(rng, -0.06, 0.06) if chance(rng, 0.7) else uniform(rng, -0.5, 0.5)
        corners = [(r, math.pi / 4 + i * math.tau / 4) for i in range(4)]
    elif shape.name == "triangle":
        corners = [(r, -math.pi / 2 + i * math.tau / 3) for i in range(3)]
    else:
        spikes, inner = (5 if chance(rng, 0.93) else 6), uniform(rng, 0.38, 0.52)
        corners = [(r * (inner if i % 2 else 1), -math.pi / 2 + i * math.pi / spikes) for i in range(2 * spikes)]
    if hand:
        squash, turn = uniform(rng, 0.86, 1.0), turn * 0.5
        jitter = 0.0 if shape.name == "circle" else 0.06
        waves = [(k, uniform(rng, 0, 0.03), uniform(rng, 0, math.tau)) for k in (2, 3, 4)]
        corners = [
            (
                length * (0.93 + sum(a * math.sin(k * angle + p) for k, a, p in waves) + uniform(rng, -jitter, 0)),
                angle + uniform(rng, -jitter, jitter),
            )
            for length, angle in corners
        ]
    else:
        squash = 1.0
    return [
        (shape.x + length * math.cos(angle + turn), shape.y + squash * length * math.sin(angle + turn))
        for length, angle in corners
    ]


def _paint(
    image: Image.Image,
    points: list[tuple[float, float]],
    fill: Color | None,
    edge: Color | None,
    width: float,
) -> None:
    """Paints a polygon with smooth borders: a mask at twice the size, reduced, for its own box only."""
    pad = width / 2 + 2
    left, top = math.floor(min(x for x, _ in points) - pad), math.floor(min(y for _, y in points) - pad)
    right, bottom = math.ceil(max(x for x, _ in points) + pad), math.ceil(max(y for _, y in points) + pad)
    double = [(2 * (x - left), 2 * (y - top)) for x, y in points]
    size = 2 * (right - left), 2 * (bottom - top)
    if fill is not None:
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).polygon(double, fill=255)
        image.paste(fill, (left, top), mask.reduce(2))
    if edge is not None:
        mask = Image.new("L", size)
        ring = [*double, double[0], double[1]]  # one more side, so that the last joint is round too
        ImageDraw.Draw(mask).line(ring, fill=255, width=max(1, round(2 * width)), joint="curve")
        image.paste(edge, (left, top), mask.reduce(2))
