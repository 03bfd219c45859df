"""Answers of a few words: equal, equal in essence, contained, yes or no."""

import json
import re
from collections.abc import Sequence

import numpy as np

from neo.evaluation.metrics.metric import Case

_NARROW = {0x3000: " "} | {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
"""Full-width characters of East Asian text and their usual forms."""


def exact(predicted: str, expected: str) -> float:
    """Whether two texts are equal, apart from spaces around them."""
    return float(predicted.strip() == expected.strip())


def match(predicted: str, expected: str) -> float:
    """Whether two texts are equal up to case, spaces and a final full stop; JSON objects and lists by their content."""
    if expected.lstrip().startswith(("{", "[")):
        try:
            wanted = json.loads(expected)
        except (ValueError, RecursionError):
            return float(normal(predicted) == normal(expected))
        try:
            return float(json.loads(predicted) == wanted)
        except (ValueError, RecursionError):  # an answer may be brackets in brackets without an end
            return 0.0
    return float(normal(predicted) == normal(expected))


def normal(text: str) -> str:
    """Lower case, single spaces, no final full stop."""
    return " ".join(text.lower().split()).removesuffix(".").rstrip()


def contains(predicted: str, expected: str) -> float:
    """Whether the answer holds the expected text, in any case (OCRBench, arXiv:2305.07895).

    Line breaks are spaces, full-width letters usual ones, as in lmms-eval. OCRBench compares formulas, HME100k, without
    any spaces; give those without spaces.
    """
    return float(_plain(expected) in _plain(predicted))


def _plain(text: str) -> str:
    return text.translate(_NARROW).lower().strip().replace("\n", " ")


def yes_or_no(text: str) -> str | None:
    """The first of the words yes and no in a text."""
    found = re.search(r"\b(yes|no)\b", text.lower())
    return found[1] if found else None


def yes_no_counts(cases: Sequence[Case]) -> np.ndarray:
    """(right, true positives, false positives, missed positives, 1) of each, yes being positive.

    As POPE counts (arXiv:2305.10355), but the word may stand in a sentence, where the first of the two counts. An
    answer with neither is wrong, and no yes.

    Raises:
        ValueError: a record expects neither yes nor no.
    """
    rows = []
    for case in cases:
        expected, said = yes_or_no(case.expected[0]), yes_or_no(case.predicted)
        if expected is None:
            raise ValueError(f"{case.where}: metric yes_no needs yes or no as the answer, not {case.expected[0]!r:.60}")
        yes = said == "yes", expected == "yes"
        rows.append([said == expected, yes == (True, True), yes == (True, False), yes == (False, True), 1])
    return np.array(rows, dtype=float).reshape(-1, 5)


def f1(sums: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall of yes; 0 where there is no yes."""
    right, wrong, missed = sums[..., 1], sums[..., 2], sums[..., 3]
    return _divided(2 * right, 2 * right + wrong + missed)


def precision(sums: np.ndarray) -> np.ndarray:
    """Share of right ones among the answers yes."""
    return _divided(sums[..., 1], sums[..., 1] + sums[..., 2])


def recall(sums: np.ndarray) -> np.ndarray:
    """Share of found ones among the expected yes."""
    return _divided(sums[..., 1], sums[..., 1] + sums[..., 3])


def said_yes(sums: np.ndarray) -> np.ndarray:
    """Share of answers that are yes."""
    return _divided(sums[..., 1] + sums[..., 2], sums[..., 4])


def _divided(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=below != 0)
