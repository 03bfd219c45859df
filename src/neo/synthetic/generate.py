"""The door: sample number `index` of the endless stream of a seed."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from neo.suggestion import suggestion
from neo.synthetic.chart import chart, chart_turns, draw_chart
from neo.synthetic.dialogue import compatible, described_turns, passage, text_turns
from neo.synthetic.receipt import draw_receipt, receipt, receipt_turns
from neo.synthetic.sample import Sample, Turn, between, chance, pick, shuffled, weighted
from neo.synthetic.scene import draw_scene
from neo.synthetic.scene_questions import ALONE, SCENE_KINDS, WHOLE_SCENE, Candidate, scene_for, scene_turns, tally
from neo.synthetic.text_pictures import (
    draw_handwritten,
    draw_writing,
    handwritten,
    handwritten_turns,
    number,
    word,
    writing_turns,
)

DEFAULT_WEIGHTS: dict[str, float] = {
    "color": 1.0,
    "lookup": 0.6,
    "shape": 1.0,
    "count": 1.8,
    "position": 1.2,
    "exist": 0.4,
    "number": 1.8,
    "handwritten": 1.2,
    "word": 1.6,
    "chart": 1.0,
    "receipt": 1.0,
    "caption": 0.8,
    "list": 0.8,
    "where": 0.0,
    "text": 0.6,
    "described": 0.4,
}
FAMILIES: tuple[str, ...] = tuple(DEFAULT_WEIGHTS)

_SPLITS = {"train": 0, "test": 1}


def generate(seed: int, index: int, split: str = "train", families: Mapping[str, float] | None = None) -> Sample:
    """One picture with its conversation, a pure function of the arguments.

    Args:
        seed: which stream, 0 or more.
        index: the position in the stream, 0 or more.
        split: "train", or "test" (another stream: other scans of handwritten digits, exactly one turn
            with the canonical question).
        families: weights by family name, `DEFAULT_WEIGHTS` when None.

    Raises:
        ValueError: for an unknown split or family, or weights of which none is positive.
        ImportError: when the extra "train" (fonts, scans) is not installed.
    """
    rng = _stream(seed, index, split)
    family = weighted(rng, DEFAULT_WEIGHTS if families is None else _checked(families))
    plain = split == "test"
    if family in SCENE_KINDS:
        return _scene(rng, family, plain)
    if family in ("text", "described"):
        turns = text_turns(rng, plain) if family == "text" else described_turns(rng, plain)
        return Sample(family, None, tuple(turns))
    image, turns = _drawn(rng, family, split)
    if plain:
        # Both questions of charts and receipts are canonical.
        return Sample(family, image, (pick(rng, turns[:2] if family != "receipt" else turns),))
    if chance(rng, 0.2) and family in ("chart", "receipt"):
        turns = [pick(rng, turns)]
    return Sample(family, image, tuple(turns))


def corpus(seed: int, index: int, split: str = "train") -> str:
    """A short plain text for a language model to learn words, numbers and answer formats from.

    A pure function of the arguments, as `generate`.
    """
    return passage(_stream(seed, index, split))


def _stream(seed: int, index: int, split: str) -> np.random.Generator:
    if split not in _SPLITS:
        raise ValueError(f'Unknown split "{split}": use "train" or "test".')
    if seed < 0 or index < 0:
        raise ValueError(f"Seed and index must be 0 or more, got seed {seed} and index {index}.")
    return np.random.default_rng([seed, index, _SPLITS[split]])


def _checked(families: Mapping[str, float]) -> Mapping[str, float]:
    for name, weight in families.items():
        if name not in FAMILIES:
            raise ValueError(f'Unknown family "{name}"{suggestion(name, FAMILIES)}')
        if not 0 <= weight < float("inf"):
            raise ValueError(f'The weight of family "{name}" must be a number from 0 up, got {weight}.')
    if not sum(families.values()) > 0:
        raise ValueError("At least one family needs a weight above 0.")
    return families


def _drawn(rng: np.random.Generator, family: str, split: str) -> tuple[Image.Image, list[Turn]]:
    """A picture of any family but scenes, and all its turns in an order without leaks."""
    plain = split == "test"
    if family == "handwritten":
        scan, ink = handwritten(rng, split)
        return draw_handwritten(rng, scan, ink), handwritten_turns(rng, scan, ink, plain)
    if family in ("number", "word"):
        writing = number(rng) if family == "number" else word(rng)
        return draw_writing(rng, writing), writing_turns(rng, writing, plain)
    if family == "chart":
        bars = chart(rng)
        return draw_chart(rng, bars), shuffled(rng, chart_turns(rng, bars, plain))
    bill = receipt(rng)
    return draw_receipt(rng, bill), receipt_turns(rng, bill, plain)


def _scene(rng: np.random.Generator, family: str, plain: bool) -> Sample:
    """A scene with a question of this family first; up to three others follow, all shapes (or where they are) last."""
    while not (main := scene_turns(rng, scene := scene_for(rng, family), family, plain)):
        pass  # a scene without an unambiguous question of this kind: draw lots again
    # Among the candidates may be an extra of another kind ("What color is the shape on the left?").
    main = [candidate for candidate in main if candidate[0].kind == family] or main
    candidates: list[Candidate] = main[:1]
    image = draw_scene(rng, scene)
    if family == "where" and not plain:
        counts = [turn for turn, _ in scene_turns(rng, scene, "count", False)] + tally(scene)
        pointing = [turn for turn, _ in main]
        last = max(pointing, key=lambda turn: len(turn.answer)) if chance(rng, 0.5) else pick(rng, pointing)
        return Sample(family, image, (*shuffled(rng, counts)[: between(rng, 0, 4)], last))
    if plain or family in ALONE or chance(rng, 0.2):
        return Sample(family, image, (candidates[0][0],))
    others = list(main[1:])
    for kind in SCENE_KINDS:
        others += scene_turns(rng, scene, kind, False)[:2] if kind not in (family, *ALONE) else []
    turns = compatible([*candidates, *shuffled(rng, others)])[: pick(rng, (2, 2, 3, 4))]
    if chance(rng, 0.4):
        turns += [candidate[0] for candidate in scene_turns(rng, scene, pick(rng, WHOLE_SCENE), False)]
    return Sample(family, image, tuple(turns))
