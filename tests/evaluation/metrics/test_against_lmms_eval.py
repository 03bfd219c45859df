"""Metrics give what lmms-eval's functions give, on random answers."""

import random
from collections.abc import Callable, Sequence

import pytest
from lmms_eval.api.metrics import anls
from lmms_eval.tasks.chartqa.utils import relaxed_correctness
from lmms_eval.tasks.ocrbench.utils import ocrbench_process_results
from lmms_eval.tasks.pope.utils import pope_process_results
from lmms_eval.tasks.refcoco.utils_rec import compute_iou
from lmms_eval.tasks.textvqa.utils import textvqa_process_results

from neo.evaluation.metrics import METRICS, Case

WORDS = ("a", "the", "Red", "red.", "wine", "two", "2", "well-known", "ＳＴＯＰ", "don't")
NUMBERS = ("100", "104.9", "105", "105.1", "-100", "0", "0.0", "12%", "0.12", "0.125", "Red", "red")


def of_lmms_eval(metric: str, said: str, expected: Sequence[str]) -> float:
    if metric == "anls":
        return anls(list(expected), [said])["anls"]
    if metric == "relaxed":
        return relaxed_correctness(said, expected[0])
    if metric == "contains":
        doc = {"answer": list(expected), "dataset": "", "question_type": ""}
        return ocrbench_process_results(doc, [said])["ocrbench_accuracy"]["score"]
    if metric == "yes_no":
        return pope_process_results({"answer": expected[0], "question_id": 0}, [said])["pope_accuracy"]["score"]
    if metric == "vqa":
        return textvqa_process_results({"answers": list(expected), "question_id": 0}, [said])["exact_match"]
    return compute_iou(*([float(side) for side in text[1:-1].split(",")] for text in (said, *expected)))


def texts(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(1, 4)))


def boxes(chance: random.Random) -> str:
    left, top = chance.randint(0, 9), chance.randint(0, 9)
    return str([left, top, left + chance.randint(1, 9), top + chance.randint(1, 9)])


@pytest.mark.parametrize(
    ("metric", "draw", "number"),
    [
        ("anls", texts, 2),
        ("relaxed", lambda chance: chance.choice(NUMBERS), 1),
        ("contains", texts, 2),
        ("yes_no", lambda chance: chance.choice(("yes", "no", "Yes")), 1),
        ("vqa", lambda chance: chance.choice(WORDS), 10),
        ("iou", boxes, 1),
    ],
)
def test_scores_are_those_of_lmms_eval(metric: str, draw: Callable[[random.Random], str], number: int) -> None:
    chance = random.Random(0)
    cases = [Case(draw(chance), tuple(draw(chance) for _ in range(number))) for _ in range(300)]
    scores = METRICS[metric].scores(METRICS[metric].counts(cases))
    theirs = [float(of_lmms_eval(metric, case.predicted, case.expected)) for case in cases]
    assert len(set(theirs)) > 1
    assert scores == pytest.approx(theirs)
