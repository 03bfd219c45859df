"""When an answer counts as right."""

import json


def matches(kind: str, predicted: str, expected: str) -> bool:
    """Whether two answers are the same up to case, outer spaces and a final period; JSON by its content.

    `kind` is the family of the question.
    """
    if kind in ("receipt", "described") and expected.lstrip().startswith("{"):
        try:
            return json.loads(predicted) == json.loads(expected)
        except json.JSONDecodeError:
            return False
    return _normal(predicted) == _normal(expected)


def _normal(text: str) -> str:
    return " ".join(text.lower().split()).removesuffix(".").rstrip()
