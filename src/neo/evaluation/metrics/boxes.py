"""Boxes that answers name by numbers."""

import re
from collections.abc import Sequence

import numpy as np

from neo.evaluation.metrics.metric import Case

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
HALF = 0.5
_NUMBER = r"-?(?:\d+(?:\.\d+)?|\.\d+)"


def box_of(text: str) -> Box | None:
    """The box that a text names: the first four numbers in brackets, or else the only four that it holds."""
    found = re.search(rf"[\[(<]\s*({_NUMBER}(?:[\s,]+{_NUMBER}){{3}})\s*[\])>]", text)
    numbers = [float(one) for one in re.findall(_NUMBER, found[1] if found else text)]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes; 0 where one has no area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0 or _area(one) <= 0 or _area(other) <= 0:
        return 0.0
    return width * height / (_area(one) + _area(other) - width * height)


def iou_counts(cases: Sequence[Case]) -> np.ndarray:
    """(best overlap with an expected box, whether it is at least one half, 1) of each.

    Overlap of one half is what grounding counts as found (RefCOCO; Pascal VOC). Both boxes are in the same units.

    Raises:
        ValueError: a record expects what is no box.
    """
    rows = []
    for case in cases:
        boxes = [box_of(expected) for expected in case.expected]
        if None in boxes or any(_area(box) <= 0 for box in boxes if box):
            raise ValueError(
                f"{case.where}: metric iou needs a box as the answer, [left, top, right, bottom], "
                f"not {case.expected[0]!r:.60}"
            )
        said = box_of(case.predicted)
        best = max(overlap(said, box) for box in boxes if box) if said else 0.0
        rows.append([best, best >= HALF, 1])
    return np.array(rows, dtype=float).reshape(-1, 3)


def found(sums: np.ndarray) -> np.ndarray:
    """Share with an overlap of at least one half."""
    return np.divide(sums[..., 1], sums[..., 2], out=np.zeros(sums.shape[:-1]), where=sums[..., 2] != 0)


def _area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
