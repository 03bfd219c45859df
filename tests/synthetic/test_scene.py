"""Scenes: answers that the shapes themselves confirm."""

import math
import re

import numpy as np
import pytest

from neo.synthetic.palette import COLORS, distance, paper_color, shade
from neo.synthetic.scene import SHAPES, Scene, Shape, draw_scene
from neo.synthetic.scene_questions import SCENE_KINDS, caption, describe_scene, scene_for, scene_turns, tally


def scenes(kind, number=200):
    for index in range(number):
        rng = np.random.default_rng([index, 11])
        yield rng, scene_for(rng, kind)


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_shapes_are_inside_and_apart(kind):
    for _, scene in scenes(kind):
        for i, a in enumerate(scene.shapes):
            assert a.r <= a.x <= scene.width - a.r
            assert a.r <= a.y <= scene.height - a.r
            assert a.r >= 5
            for b in scene.shapes[:i]:
                assert math.hypot(a.x - b.x, a.y - b.y) > max(a.r, b.r)


def test_colors_and_shapes_are_asked_only_where_unique():
    for rng, scene in scenes("color"):
        for kind, given, wanted in (("color", "name", "color"), ("shape", "color", "name")):
            for turn, _facts in scene_turns(rng, scene, kind, True):
                key = re.search(r"(\w+)\?", turn.question)[1]
                (shape,) = [s for s in scene.shapes if getattr(s, given) == key]
                assert turn.answer == getattr(shape, wanted)


def test_counts_are_counted():
    seen = set()
    for rng, scene in scenes("count"):
        for number, (turn, _facts) in enumerate(scene_turns(rng, scene, "count", True)):
            name = turn.question.split()[2].removesuffix("s")
            assert turn.answer == str(sum(shape.name == name for shape in scene.shapes))
            if number == 0:
                assert name == scene.counted
                seen.add(int(turn.answer))
    assert seen == set(range(10))


def test_points_are_tenths_of_the_picture_from_its_left_and_top():
    for rng, scene in scenes("where"):
        for turn, _facts in scene_turns(rng, scene, "where", True):
            name = turn.question.split()[-1].removesuffix("s?")
            points = [(int(point[0]), int(point[1])) for point in turn.answer.split()]
            assert points == sorted(points)
            centres = [(10 * s.x / scene.width, 10 * s.y / scene.height) for s in scene.shapes if s.name == name]
            assert len(points) == len(centres)
            for x, y in centres:
                assert (math.floor(x), math.floor(y)) in points


def test_tallies_count_colors_and_kinds():
    scene = Scene(
        90, 90, tuple(Shape(*what, 9, 9, 5) for what in [("star", "red"), ("star", "blue"), ("circle", "red")])
    )
    assert {(turn.question, turn.answer) for turn in tally(scene)} == {
        ("How many red shapes are there?", "2"),
        ("How many blue shapes are there?", "1"),
        ("How many red stars are there?", "1"),
        ("How many blue stars are there?", "1"),
        ("How many red circles are there?", "1"),
    }


def test_positions_are_clear():
    asked = 0
    for rng, scene in scenes("position"):
        for turn, _facts in scene_turns(rng, scene, "position", True):
            axis = "x" if turn.question.endswith(("left?", "right?")) else "y"
            size = scene.width if axis == "x" else scene.height
            sign = 1 if turn.question.endswith(("left?", "top?")) else -1
            ordered = sorted(scene.shapes, key=lambda s: sign * getattr(s, axis))
            assert turn.answer == ordered[0].name
            assert abs(getattr(ordered[0], axis) - getattr(ordered[1], axis)) > 0.2 * size
            asked += 1
    assert asked > 300


def test_exist_says_yes_and_no_rightly():
    answers = []
    for rng, scene in scenes("exist"):
        for turn, _facts in scene_turns(rng, scene, "exist", True):
            color, name = turn.question.removesuffix("?").split()[-2:]
            there = any((s.color, s.name) == (color, name) for s in scene.shapes)
            assert turn.answer == ("yes" if there else "no")
            answers.append(turn.answer)
    assert 60 < answers.count("yes") < 140


def test_captions():
    circle, square = Shape("circle", "red", 30, 64, 20), Shape("square", "orange", 95, 60, 20)
    assert caption(Scene(128, 128, ())) == "An empty picture."
    assert caption(Scene(128, 128, (square,))) == "An orange square."
    both = Scene(128, 128, (square, circle))
    assert caption(both) == "A red circle on the left and an orange square on the right."
    words = describe_scene(np.random.default_rng(0), both)
    assert words == "There is a red circle on the left and an orange square on the right."
    stacked = Scene(128, 128, (Shape("star", "blue", 60, 20, 15), Shape("star", "red", 64, 90, 15)))
    assert caption(stacked) == "A blue star at the top and a red star at the bottom."
    many = Scene(128, 128, (circle, Shape("circle", "red", 95, 95, 9), square))
    assert caption(many) == "Two red circles and an orange square."
    mixed = Scene(128, 128, (circle, Shape("circle", "blue", 95, 95, 9), Shape("circle", "red", 30, 110, 9)))
    assert caption(mixed) == "Three circles."


def test_a_big_shape_has_its_color_in_the_picture():
    for index in range(60):
        rng = np.random.default_rng(index)
        color = COLORS[index % len(COLORS)]
        image = draw_scene(rng, Scene(128, 128, (Shape(SHAPES[index % 3], color, 64, 64, 50),)))
        assert image.size == (128, 128)
        pixels = np.asarray(image).reshape(-1, 3).astype(float)
        assert pixels.std(axis=0).max() > 15  # it can be seen at all


def test_papers_keep_away_from_the_inks():
    for index in range(300):
        rng = np.random.default_rng(index)
        inks = [shade(rng, color) for color in COLORS]
        ground = paper_color(rng, inks)
        assert min(distance(ground, ink) for ink in inks) > 70  # the mid-grey for when all eight inks are asked for
