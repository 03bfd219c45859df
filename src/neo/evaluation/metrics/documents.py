"""Metrics of the benchmarks of documents, charts and scene text, and error rates of what was read."""

from collections.abc import Callable, Sequence

import numpy as np

from neo.evaluation.metrics.extras import needed
from neo.evaluation.metrics.metric import Case

ANLS_THRESHOLD = 0.5


def anls(predicted: str, expected: str) -> float:
    """Similarity of two texts by their edits: 1 - edits / length of the longer one, or 0 below one half.

    Mean of it is the average normalised Levenshtein similarity of ST-VQA (arXiv:1905.13648), DocVQA and InfographicVQA.
    Case and the number of spaces do not count. As in their scoring program a similarity of just one half counts.
    """
    one, other = _spaced(predicted).lower(), _spaced(expected).lower()
    longer = max(len(one), len(other))
    similarity = 1 - _edits(one, other) / longer if longer else 1.0
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def relaxed(predicted: str, expected: str) -> float:
    """Whether two numbers are at most 5 % of the expected one apart, or two texts are equal up to case.

    The relaxed accuracy of ChartQA (arXiv:2203.10244, end of section 5.1). 12 % is 0.12; a number that is to be 0 has
    to be equal as a text.
    """
    one, other = predicted.strip(), expected.strip()
    if one.lower() == other.lower():
        return 1.0
    said, wanted = _number(one), _number(other)
    return float(said is not None and wanted is not None and wanted != 0 and abs(said - wanted) <= 0.05 * abs(wanted))


def error_counts(split: Callable[[str], Sequence[str]]) -> Callable[[Sequence[Case]], np.ndarray]:
    """(edits, length of the expected text) of each, in what `split` makes of a text: its characters or its words.

    Of several expected texts the one with the lowest rate. Spaces are single; case counts.
    """

    def counts(cases: Sequence[Case]) -> np.ndarray:
        rows = []
        for case in cases:
            said = split(_spaced(case.predicted))
            texts = [split(_spaced(expected)) for expected in case.expected]
            if not all(texts):
                raise ValueError(f"{case.where}: an error rate needs an expected text that is not empty")
            pairs = [(_edits(said, text), len(text)) for text in texts]
            rows.append(min(pairs, key=lambda pair: pair[0] / pair[1]))
        return np.array(rows, dtype=float).reshape(-1, 2)

    return counts


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _edits(one: Sequence[str], other: Sequence[str]) -> int:
    """Levenshtein distance."""
    return needed("rapidfuzz.distance", "anls, cer and wer").Levenshtein.distance(one, other)


def _number(text: str) -> float | None:
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
