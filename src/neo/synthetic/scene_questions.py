"""Questions about scenes, their answers, and scenes in words."""

from dataclasses import replace

import numpy as np

from neo.synthetic.palette import COLORS
from neo.synthetic.sample import Turn, article, asked, chance, pick, shuffled
from neo.synthetic.scene import SHAPES, Scene, Shape, crowd, few, pair, single

NUMBER_WORDS = (
    "Zero",
    "One",
    "Two",
    "Three",
    "Four",
    "Five",
    "Six",
    "Seven",
    "Eight",
    "Nine",
    "Ten",
    "Eleven",
)
SCENE_KINDS = ("color", "lookup", "shape", "count", "position", "exist", "caption", "list", "where")
WHOLE_SCENE = ("caption", "list")
"""Kinds whose answer gives every other away: alone or last in a conversation."""
ALONE = (*WHOLE_SCENE, "lookup", "where")
"""Kinds with which a conversation never goes on: beside answers about the others theirs can be had by elimination."""
PLACES = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}

Fact = tuple[str, object]
# A turn and what it gives away; two turns that give away the same thing never share a picture.
Candidate = tuple[Turn, frozenset[Fact]]


def scene_for(rng: np.random.Generator, kind: str) -> Scene:
    """A scene in which a question of this kind makes sense."""
    if kind in ("color", "shape"):
        return single(rng) if chance(rng, 0.8) else few(rng)
    if kind == "lookup":
        return pair(rng) if chance(rng, 0.5) else few(rng)
    if kind == "count":
        return crowd(rng)
    if kind == "where":
        return crowd(rng, 0.7)
    if kind == "position":
        return pair(rng, distinct=chance(rng, 0.85)) if chance(rng, 0.7) else few(rng)
    if kind == "exist":
        return few(rng, low=1)
    if kind == "list":
        return crowd(rng) if chance(rng, 0.6) else few(rng)
    choice = rng.random()
    return single(rng) if choice < 0.5 else pair(rng, distinct=chance(rng, 0.8)) if choice < 0.8 else crowd(rng, 0.2)


def scene_turns(rng: np.random.Generator, scene: Scene, kind: str, plain: bool) -> list[Candidate]:
    """All questions of one kind that have exactly one right answer here, in random order.

    Where the scene was made for counting a shape, the question for it comes first.
    """
    makers = {
        "color": _color,
        "lookup": _lookup,
        "shape": _shape,
        "count": _count,
        "position": _position,
        "exist": _exist,
        "caption": _caption,
        "list": _list,
        "where": _where,
    }
    found = makers[kind](rng, scene, plain)
    return found if kind == "count" and scene.counted else shuffled(rng, found)


def _only(scene: Scene, **wanted: str) -> list[tuple[int, Shape]]:
    """The shapes that are alone in having their value of the one wanted field."""
    (field,) = wanted
    values = [getattr(shape, field) for shape in scene.shapes]
    return [(i, shape) for i, shape in enumerate(scene.shapes) if values.count(values[i]) == 1]


def _color(rng: np.random.Generator, scene: Scene, plain: bool) -> list[Candidate]:
    found = []
    for i, shape in _only(scene, name=""):
        others = [f"What colour is the {shape.name}?", f"Which color does the {shape.name} have?"]
        others += [f"Tell me the color of the {shape.name}."]
        if len(scene.shapes) == 1:
            others += ["What color is the shape?", "What color is it?", "What color is this?"]
        question = asked(rng, f"What color is the {shape.name}?", others, plain)
        found.append((Turn(question, shape.color, "color"), frozenset({("object", i), ("count", shape.name)})))
    return found


def _lookup(rng: np.random.Generator, scene: Scene, plain: bool) -> list[Candidate]:
    """The colour of a shape among others: which of them is meant, its name alone tells."""
    return [(replace(turn, kind="lookup"), known) for turn, known in _color(rng, scene, plain)]


def _shape(rng: np.random.Generator, scene: Scene, plain: bool) -> list[Candidate]:
    found = []
    for i, shape in _only(scene, color=""):
        others = [f"Which shape is {shape.color}?", f"What is the {shape.color} shape?"]
        if len(scene.shapes) == 1:
            others += ["What shape is this?", "What shape is it?", "Which shape do you see?"]
        question = asked(rng, f"What shape is {shape.color}?", others, plain)
        found.append((Turn(question, shape.name, "shape"), frozenset({("object", i), ("count", shape.name)})))
    return found


def _count(rng: np.random.Generator, scene: Scene, plain: bool) -> list[Candidate]:
    names = [shape.name for shape in scene.shapes]
    present = sorted((name for name in SHAPES if name in names), key=names.count, reverse=True)[:2]
    absent = [name for name in SHAPES if name not in names]
    asked_for = [*present, pick(rng, absent)] if absent and (not names or chance(rng, 0.08)) else present
    if scene.counted is not None:
        asked_for = [scene.counted, *(name for name in asked_for if name != scene.counted)]
    found: list[Candidate] = []
    for name in asked_for:
        others = [
            f"How many {name}s do you see?",
            f"Count the {name}s.",
            f"How many {name}s are in the picture?",
        ]
        question = asked(rng, f"How many {name}s are there?", others, plain)
        known = frozenset({("count", name), *((("count", None),) if len(present) == 1 else ())})
        found.append((Turn(question, str(names.count(name)), "count"), known))
    if not plain and len(names) < 10 and chance(rng, 0.25):
        question = pick(rng, ("How many shapes are there?", "How many shapes do you see?", "Count the shapes."))
        found.append((Turn(question, str(len(names)), "count"), frozenset({("count", n) for n in (*names, None)})))
    return found


def extremes(scene: Scene) -> dict[str, Shape]:
    """For each side of the picture the shape that is clearly the nearest to it, where one is."""
    if not 2 <= len(scene.shapes) <= 4:
        return {}
    found = {}
    for axis, size, (low, high) in (
        ("x", scene.width, ("left", "right")),
        ("y", scene.height, ("top", "bottom")),
    ):
        ordered = sorted(scene.shapes, key=lambda shape: getattr(shape, axis))
        at = [getattr(shape, axis) for shape in ordered]
        if at[1] - at[0] > 0.2 * size and at[0] < 0.5 * size:
            found[low] = ordered[0]
        if at[-1] - at[-2] > 0.2 * size and at[-1] > 0.5 * size:
            found[high] = ordered[-1]
    return found


def _position(rng: np.random.Generator, scene: Scene, plain: bool) -> list[Candidate]:
    found: list[Candidate] = []
    for side, shape in extremes(scene).items():
        where = PLACES[side]
        others = [f"What shape is {where}?", f"What is {where}?", f"Which shape do you see {where}?"]
        question = asked(rng, f"Which shape is {where}?", others, plain)
        found.append((Turn(question, shape.name, "position"), frozenset({("place", None)})))
        if not plain and chance(rng, 0.12):
            question = f"What color is the shape {where}?"
            found.append((Turn(question, shape.color, "color"), frozenset({("place", None), ("object", None)})))
    return found


def _exist(rng: np.random.Generator, scene: Scene, plain: bool) -> list[Candidate]:
    if not scene.shapes:
        return []
    shape = pick(rng, scene.shapes)
    name, color, there = shape.name, shape.color, True
    if chance(rng, 0.6):
        if chance(rng, 0.5):
            color = pick(rng, COLORS)
        else:
            name = pick(rng, SHAPES)
        there = any((s.name, s.color) == (name, color) for s in scene.shapes)
    thing = article(f"{color} {name}")
    question = asked(rng, f"Is there {thing}?", [f"Do you see {thing}?", f"Is there {thing} in the picture?"], plain)
    known: set[Fact] = {("count", name)}
    known |= {("object", i) for i, s in enumerate(scene.shapes) if s.name == name or s.color == color}
    return [(Turn(question, "yes" if there else "no", "exist"), frozenset(known))]


def caption(scene: Scene) -> str:
    """One sentence: two shapes with their places, more than two by kind and number."""
    shapes = scene.shapes
    if not shapes:
        return "An empty picture."
    if len(shapes) == 2 and (shapes[0].name, shapes[0].color) != (shapes[1].name, shapes[1].color):
        dx, dy = abs(shapes[0].x - shapes[1].x), abs(shapes[0].y - shapes[1].y)
        if max(dx, dy) > 1.5 * min(dx, dy):
            first, second = sorted(shapes, key=lambda s: s.x if dx > dy else s.y)
            one, two = (PLACES["left"], PLACES["right"]) if dx > dy else (PLACES["top"], PLACES["bottom"])
            text = f"{article(_noun(first))} {one} and {article(_noun(second))} {two}."
            return text[0].upper() + text[1:]
    groups = []
    for name in SHAPES:
        colors = [shape.color for shape in shapes if shape.name == name]
        if colors:
            noun = f"{colors[0]} {name}" if len(set(colors)) == 1 else name
            number = len(colors)
            groups.append(article(noun) if number == 1 else f"{NUMBER_WORDS[number].lower()} {noun}s")
    text = listed(groups) + "."
    return text[0].upper() + text[1:]


def _noun(shape: Shape) -> str:
    return f"{shape.color} {shape.name}"


def listed(items: list[str]) -> str:
    """Words joined as in a sentence: "a, b and c"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _caption(rng: np.random.Generator, scene: Scene, plain: bool) -> list[Candidate]:
    others = ["Describe the picture.", "What do you see?", "What is in the image?", "Caption this image."]
    question = asked(rng, "Describe the image.", others, plain)
    return [(Turn(question, caption(scene), "caption"), frozenset())]


def _list(rng: np.random.Generator, scene: Scene, plain: bool) -> list[Candidate]:
    """Every shape in words: many words of supervision for one picture, and no way around looking at each shape."""
    if not scene.shapes:
        return []
    others = ["Name the shapes from left to right.", "Which shapes do you see from left to right?"]
    question = asked(rng, "List the shapes from left to right.", others, plain)
    answer = ", ".join(_noun(shape) for shape in sorted(scene.shapes, key=lambda shape: shape.x))
    return [(Turn(question, answer, "list"), frozenset())]


def _where(rng: np.random.Generator, scene: Scene, plain: bool) -> list[Candidate]:
    """Pointing at the shapes of a kind, or at all: what counting comes down to, with two digits learned for each."""
    names = {shape.name for shape in scene.shapes}
    found: list[Candidate] = []
    for name in [*(name for name in SHAPES if name in names), *(("shape",) if len(names) > 1 and not plain else ())]:
        question = asked(rng, f"Where are the {name}s?", [f"Point to the {name}s."], plain)
        points = sorted(_tenths(scene, shape) for shape in scene.shapes if name in (shape.name, "shape"))
        found.append((Turn(question, " ".join(points), "where"), frozenset()))
    return found


def _tenths(scene: Scene, shape: Shape) -> str:
    """Where the middle of a shape is, as two digits: tenths of the width from the left, of the height from the top."""
    return f"{int(10 * shape.x / scene.width)}{int(10 * shape.y / scene.height)}"


def tally(scene: Scene) -> list[Turn]:
    """How many there are of each colour, and of each colour and shape together."""
    colors = [(shape.color, "shape") for shape in scene.shapes]
    both = [(shape.color, shape.name) for shape in scene.shapes]
    return [
        Turn(f"How many {color} {name}s are there?", str(things.count((color, name))), "count")
        for things in (colors, both)
        for color, name in dict.fromkeys(things)
    ]


def describe_scene(rng: np.random.Generator, scene: Scene) -> str:
    """The scene in words, from which its questions can be answered without the picture."""
    if not scene.shapes:
        return "The picture is empty."
    if len(scene.shapes) == 2:
        text = caption(scene)
        if " on the " in text or " at the " in text:
            return f"There is {text[0].lower()}{text[1:]}"
    things = listed([article(_noun(shape)) for shape in scene.shapes])
    return pick(rng, ("There is {}.", "I see {}.", "In the picture there is {}.")).format(things)
