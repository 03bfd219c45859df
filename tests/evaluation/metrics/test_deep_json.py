"""JSON whose parts lie deeper in one another than Python follows: a wrong answer, as any other that is none."""

from collections.abc import Sequence

import pytest

from neo.evaluation.metrics import METRICS, Case

DEEP = "[" * 3000
CHAIN = {"type": ["array"], "items": {"$ref": "#"}}


def counted(metric: str, predicted: str, expected: str, schema: dict | None = None) -> Sequence[float]:
    return METRICS[metric].counts([Case(predicted, (expected,), schema=schema, where="here")])[0].tolist()


@pytest.mark.parametrize("said", [DEEP, '{"a":' * 3000])
@pytest.mark.parametrize("metric", ["json", "match"])
def test_an_answer_is_wrong(metric: str, said: str) -> None:
    assert counted(metric, said, '{"a": [1]}')[0] == 0


def test_an_answer_is_not_valid_by_a_schema_that_cannot_follow_it() -> None:
    assert counted("json", "[[]]", "[1]", CHAIN)[2] == 1
    assert counted("json", "[" * 300 + "]" * 300, "[1]", CHAIN)[2] == 0


def test_an_expected_answer_is_refused_or_a_text() -> None:
    with pytest.raises(ValueError, match="here: metric json needs JSON as the answer"):
        counted("json", "{}", DEEP)
    assert counted("match", DEEP, DEEP)[0] == 1
