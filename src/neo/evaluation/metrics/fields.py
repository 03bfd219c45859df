"""JSON answers: the share of right fields, and whether the form is right."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from neo.evaluation.metrics.extras import needed
from neo.evaluation.metrics.metric import Case
from neo.evaluation.metrics.text import normal


def json_of(text: str) -> Any:
    """The JSON in an answer, also between the lines of a code block.

    Raises:
        ValueError: it is none.
        RecursionError: its parts lie too deep in one another.
    """
    found = re.search(r"```(?:json)?\s*\n(.*?)```", text, re.DOTALL)
    return json.loads(found[1] if found else text)


def fields(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every field of a JSON value: its path, without places in lists, and its value as a text.

    Texts are taken up to case, spaces and a final full stop, numbers by their value.
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from fields(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from fields(inner, f"{path}[]")
    elif isinstance(value, str):
        yield path, f"text {normal(value)}"
    elif isinstance(value, float) and value.is_integer():
        yield path, json.dumps(int(value))
    else:
        yield path, json.dumps(value)


def json_counts(cases: Sequence[Case]) -> np.ndarray:
    """(2 x right fields, is JSON, is valid by its schema, 1, fields said and expected) of each.

    A field is right that has the same path and value, as often as it is expected: the field-level F1 of document
    parsing (Donut, arXiv:2111.15664). The order of lists does not count. Where there is no schema, any JSON is valid.

    Raises:
        ValueError: a record expects what is no JSON, or its schema is none.
    """
    return np.array([_counts(case) for case in cases], dtype=float).reshape(-1, 5)


def _counts(case: Case) -> list[float]:
    try:
        wanted = [Counter(fields(json.loads(expected))) for expected in case.expected]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{case.where}: metric json needs JSON as the answer ({error})") from error
    try:
        value = json_of(case.predicted)
        said = Counter(fields(value))
    except (ValueError, RecursionError):  # an answer may be brackets in brackets without an end
        return [0, 0, 0, 1, min(one.total() for one in wanted) or 1]
    best = max(wanted, key=lambda one: 2 * (said & one).total() / ((said + one).total() or 1))
    total = (said + best).total()
    right = 2 * (said & best).total()
    return [right, 1, _valid(value, case), 1, total] if total else [1, 1, _valid(value, case), 1, 1]


def check_schema(schema: Any, where: str) -> None:
    """See that this is a JSON schema; where its references lead is not looked at.

    Raises:
        ValueError: it is none; the sentence begins with `where`.
    """
    jsonschema = needed("jsonschema", "JSON schemas")
    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"{where}: the schema is not a JSON schema ({error.message})") from error


def _valid(value: Any, case: Case) -> bool:
    if case.schema is None:
        return True
    check_schema(case.schema, case.where)
    jsonschema = needed("jsonschema", "JSON schemas")
    unresolvable = needed("referencing.exceptions", "JSON schemas").Unresolvable
    try:
        return jsonschema.validators.validator_for(case.schema)(case.schema).is_valid(value)
    except RecursionError:  # the answer is too deep to be followed
        return False
    except unresolvable as error:
        raise ValueError(f"{case.where}: the schema is not a JSON schema ({error})") from error


def is_json(sums: np.ndarray) -> np.ndarray:
    """Share of answers that are JSON."""
    return sums[..., 1] / sums[..., 3]


def is_valid(sums: np.ndarray) -> np.ndarray:
    """Share of answers that are valid by their schema."""
    return sums[..., 2] / sums[..., 3]
