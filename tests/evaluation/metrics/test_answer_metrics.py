"""Each metric on cases worked out by hand, and what must hold of any texts."""

import json
import math

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from neo.evaluation.metrics import METRICS, Case, check_names
from neo.evaluation.metrics.boxes import box_of, overlap
from neo.evaluation.metrics.choice import chosen
from neo.evaluation.metrics.documents import anls, relaxed
from neo.evaluation.metrics.fields import fields
from neo.evaluation.metrics.vqa import vqa_normal

WORDS = st.text("ab1 .,'%-", max_size=12)


def score(metric: str, predicted: str, *expected: str, **more: object) -> float:
    """Of one answer."""
    case = Case(predicted, expected, where="here", **more)  # type: ignore[arg-type]
    return float(METRICS[metric].scores(METRICS[metric].counts([case]))[0])


def value(metric: str, *answers: tuple[str, str], number: str = "") -> float:
    """Of several answers, each with what was expected; or a further number of the metric."""
    counts = METRICS[metric].counts([Case(predicted, (expected,)) for predicted, expected in answers])
    total = METRICS[metric].more[number] if number else METRICS[metric].total
    return float(total(counts.sum(0)))


@pytest.mark.parametrize(
    ("metric", "predicted", "expected", "wanted"),
    [
        ("exact", " Red\n", ["Red"], 1),
        ("exact", "red", ["Red"], 0),
        ("match", "  The  RED circle. ", ["the red circle"], 1),
        ("match", "red", ["blue", "red"], 1),
        ("match", "red!", ["red"], 0),
        ("match", '{"b": 2.0, "a": [1]}', ['{"a": [1], "b": 2}'], 1),
        ("match", '{"a": [2]}', ['{"a": [1]}'], 0),
        ("match", "a = 1", ['{"a": 1}'], 0),
        ("match", "{not json}", ["{Not JSON}"], 1),
        ("contains", "It says STOP here", ["stop"], 1),
        ("contains", "new\nyork", ["New York"], 1),
        ("contains", "ＳＴＯＰ　１", ["stop 1"], 1),
        ("contains", "sto p", ["stop", "go"], 0),
        ("yes_no", "Yes, there is.", ["yes"], 1),
        ("yes_no", "No, not a yes.", ["Yes"], 0),
        ("yes_no", "I know", ["no"], 0),
        # kitten to sitting: 3 edits in 7 letters
        ("anls", "Kitten", ["sitting"], 4 / 7),
        ("anls", "abc", ["abxyz"], 0),  # similarity 2/5
        ("anls", "ab", ["ax"], 1 / 2),
        ("anls", "", [""], 1),
        ("anls", "New  York ", ["boston", "new york"], 1),
        ("relaxed", "105", ["100"], 1),
        ("relaxed", "94.9", ["100"], 0),
        ("relaxed", "5%", ["0.05"], 1),
        ("relaxed", "-98", ["-100"], 1),
        ("relaxed", "0.0", ["0"], 0),
        ("relaxed", "Brazil", ["brazil"], 1),
        ("relaxed", "Brasil", ["Brazil"], 0),
        ("cer", "kitten", ["sitting"], 3 / 7),
        ("cer", "abcabc", ["abc"], 1),
        ("cer", "", ["abc"], 1),
        ("cer", "a b", ["x y", "a  b"], 0),
        ("wer", "the cat sat", ["the cat sat down"], 1 / 4),
        ("wer", "a b c d", ["x"], 4),
        ("iou", "[0, 0, 10, 10]", ["[5, 5, 15, 15]"], 25 / 175),
        ("iou", "<box>(0 0 2 2)</box>", ["[0, 0, 2, 4]"], 1 / 2),
        ("iou", "no box", ["[0, 0, 2, 4]"], 0),
        ("iou", "[4, 4, 2, 2]", ["[0, 0, 2, 4]"], 0),
        ("iou", "[0, 0, 1, 1]", ["[5, 5, 6, 6]", "[0, 0, 1, 1]"], 1),
        ("json", '{"total": 5}', ['{"total": 5, "date": "1 May"}'], 2 / 3),
        ("json", '```json\n{"date": "1 MAY.", "total": 5.0}\n```', ['{"total": 5, "date": "1 May"}'], 1),
        ("json", '{"items": ["b", "a", "a"]}', ['{"items": ["a", "b", "c"]}'], 4 / 6),
        ("json", "total 5", ['{"total": 5}'], 0),
        ("json", "{}", ["{}"], 1),
        ("json", '{"a": 1}', ["{}"], 0),
        ("json", '{"a": "5"}', ['{"a": 5}'], 0),
    ],
)
def test_an_answer(metric: str, predicted: str, expected: list[str], wanted: float) -> None:
    assert score(metric, predicted, *expected) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("B", "B"),
        (" b. ", "B"),
        ("(c)", "C"),
        ("B. a dog", "B"),
        ("B) because of its ears", "B"),
        ("The answer is (D).", "D"),
        ("**Answer: C**", "C"),
        ("Option A is wrong, so the correct option is B", "B"),
        ("The correct answer is a dog", "B"),
        ("dog", "B"),
        ("A cat", "A"),
        ("It is a hot dog, I think", "D"),
        ("(A) is too small, it must be (C)", "C"),
        ("I would choose C here", "C"),
        ("The answer is A because of its ears", "A"),
        ("The answer is B because option A is too small.", "B"),
        ("The answer is B, not option C.", "B"),
        ("The correct choice is B. Option A shows a car.", "B"),
        ("Answer: B\nExplanation: option D is wrong", "B"),
        ("The answer is not B but option C", "C"),
        ("**Correct option**: B. Option A is a cat", "B"),
        ("I take option A here", "A"),
        ("Option A and option B are both wrong", None),
        ("A dog stands next to a cat", None),
        ("A or B", None),
        ("E", None),
        ("", None),
        ("A nice animal", None),
    ],
)
def test_the_choice_that_is_meant(said: str, wanted: str | None) -> None:
    assert chosen(said, ["cat", "dog", "Dogfish", "hot dog"]) == wanted


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("I am not sure.", None),
        ("I’d say nothing", None),
        ("I would choose C here", "C"),
        ("The answer, I think, is B", "B"),
        ("The answer is I because of its ears", "I"),
        ("I", "I"),
        ("I or C", None),
    ],
)
def test_i_is_a_letter_and_a_pronoun(said: str, wanted: str | None) -> None:
    assert chosen(said, [f"number {place}" for place in range(10)]) == wanted


def test_a_choice_is_expected_by_letter_or_text() -> None:
    choices = ("red", "blue")
    assert score("choice", "The answer is B", "blue", choices=choices) == 1
    assert score("choice", "blue", "b", choices=choices) == 1
    assert score("choice", "A", "b", choices=choices) == 0
    assert score("choice", "no idea", "red", choices=choices) == 0
    with pytest.raises(ValueError, match="here: metric choice needs 'choices'"):
        score("choice", "A", "A")
    with pytest.raises(ValueError, match="here: the answer 'green' is none of the choices"):
        score("choice", "A", "green", choices=choices)


def test_agreement_with_ten_people() -> None:
    answers = ["red"] * 3 + ["dark red"] * 7
    # said by 3: without one of them 2/3, without another all: (3 x 2/3 + 7 x 1) / 10
    assert score("vqa", "Red!", *answers) == pytest.approx(0.9)
    assert score("vqa", "the dark red", *answers) == 1
    assert score("vqa", "blue", *answers) == 0
    assert score("vqa", "one", *["1", *["two"] * 9]) == pytest.approx(9 * (1 / 3) / 10)
    with pytest.raises(ValueError, match="needs 'answers' of at least 4 people"):
        score("vqa", "red", "red")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("A Dog", "dog"),
        ("dont", "don't"),
        ("two dogs, one cat", "2 dogs 1 cat"),
        ("well-known", "well known"),
        ("yes - no", "yes no"),
        ("3.5 m.", "3.5 m"),
        ("1,000", "1000"),
        ("Joe's", "joe 's"),
    ],
)
def test_texts_as_vqa_compares_them(text: str, wanted: str) -> None:
    assert vqa_normal(text) == wanted


def test_f1_of_yes() -> None:
    answers = [("yes", "yes"), ("yes", "yes"), ("yes", "no"), ("no", "yes"), ("no", "no"), ("perhaps", "yes")]
    assert value("yes_no", *answers) == pytest.approx(3 / 6)
    assert value("yes_no", *answers, number="precision") == pytest.approx(2 / 3)
    assert value("yes_no", *answers, number="recall") == pytest.approx(2 / 4)
    assert value("yes_no", *answers, number="f1") == pytest.approx(4 / 7)
    assert value("yes_no", *answers, number="said_yes") == pytest.approx(3 / 6)
    assert value("yes_no", ("no", "no"), number="f1") == 0
    with pytest.raises(ValueError, match="needs yes or no"):
        score("yes_no", "yes", "maybe")


def test_errors_are_counted_over_all_letters() -> None:
    assert value("cer", ("ab", "abcd"), ("x", "y"), ("", "zzzzz")) == pytest.approx((2 + 1 + 5) / 10)
    with pytest.raises(ValueError, match="not empty"):
        score("cer", "a", " ")


def test_boxes_that_are_found() -> None:
    answers = [("[0, 0, 2, 2]", "[0, 0, 2, 4]"), ("[0, 0, 1, 2]", "[0, 0, 2, 4]")]
    assert value("iou", *answers) == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert value("iou", *answers, number="found") == 1 / 2
    assert box_of("from 1, 2 to 3, -4.5") == (1, 2, 3, -4.5)
    assert box_of("1 2 3 4 5") is None
    assert box_of("[.1, .2, -.5, 1.9]") == (0.1, 0.2, -0.5, 1.9)
    with pytest.raises(ValueError, match="metric iou needs a box"):
        score("iou", "[0, 0, 1, 1]", "[1, 1, 1, 2]")


def test_fields_of_json() -> None:
    value_ = {"shop": "A  b.", "items": [{"n": 1}, {"n": 2.0}], "paid": True, "tip": None}
    assert sorted(fields(value_)) == [
        (".items[].n", "1"),
        (".items[].n", "2"),
        (".paid", "true"),
        (".shop", "text a b"),
        (".tip", "null"),
    ]
    answers = [('{"a": 1}', '{"a": 1}'), ("no", '{"a": 1, "b": 2, "c": 3}')]
    assert value("json", *answers) == pytest.approx(2 / (2 + 3))
    assert value("json", *answers, number="is_json") == 1 / 2


def test_json_is_judged_by_its_schema() -> None:
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "number"}}}
    cases = [Case(said, ('{"a": 1}',), schema=schema, where="here") for said in ('{"a": 2}', '{"a": "2"}', "{", "[]")]
    counts = METRICS["json"].counts(cases).sum(0)
    assert METRICS["json"].more["valid"](counts) == 1 / 4
    with pytest.raises(ValueError, match="here: the schema is not a JSON schema"):
        score("json", "{}", "{}", schema={"type": "thing"})
    with pytest.raises(ValueError, match="here: the schema is not a JSON schema"):
        score("json", "{}", "{}", schema={"$ref": "#/nowhere"})
    with pytest.raises(ValueError, match="here: metric json needs JSON as the answer"):
        score("json", "{}", "none")


def test_cider() -> None:
    """Two captions of three words without a word in common; all runs are as rare: idf log 2.

    The first is right: the same runs of 1, 2 and 3 words, no run of 4: 10 x (1 + 1 + 1 + 0) / 4. The second has two of
    three words and one of two runs of 2; tf-idf vectors have equal entries: 10 x (2/3 + 1/2 + 0 + 0) / 4.
    """
    cases = [Case("A red circle.", ("a red circle",)), Case("one blue box", ("one blue star",))]
    counts = METRICS["cider"].counts(cases)
    assert METRICS["cider"].scores(counts) == pytest.approx([7.5, 10 * (2 / 3 + 1 / 2) / 4])
    assert METRICS["cider"].total(counts.sum(0)) == pytest.approx((7.5 + 10 * (2 / 3 + 1 / 2) / 4) / 2)
    with pytest.raises(ValueError, match="at least two records"):
        score("cider", "a", "a")


def test_bleu() -> None:
    """the cat sat on mat / the cat sat on the mat: 5/5, 3/4, 2/3, 1/2 runs, brevity exp(1 - 6/5)."""
    wanted = 100 * math.exp(1 - 6 / 5) * (1 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4)
    assert score("bleu", "the cat sat on mat", "the cat sat on the mat") == pytest.approx(wanted)
    assert value("bleu", ("a b c d e", "a b c d e"), ("f g h i", "f g h i")) == pytest.approx(100)


@pytest.mark.parametrize(
    "answers",
    [
        [("the cat sat on mat", "the cat sat on the mat"), ("a dog", "a red dog")],
        [("the cat is here now", "the cat was there then"), ("a dog", "a red dog")],  # no run of three is right
        [("a dog", "a dog")],  # there is no run of three
        [("nothing", "a dog")],
    ],
)
def test_bleu_is_that_of_sacrebleu(answers: list[tuple[str, str]]) -> None:
    corpus = sacrebleu.corpus_bleu([said for said, _ in answers], [[expected for _, expected in answers]])
    assert value("bleu", *answers) == pytest.approx(corpus.score)
    for said, expected in answers:
        assert score("bleu", said, expected) == pytest.approx(sacrebleu.sentence_bleu(said, [expected]).score)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.share])
@given(predicted=WORDS, expected=WORDS)
def test_shares_stay_between_0_and_1(name: str, predicted: str, expected: str) -> None:
    expected = {"yes_no": "no", "choice": "b", "iou": "[0, 0, 3, 3]", "json": '{"a": 1}'}.get(name, expected)
    answers = [expected] * 10 if name == "vqa" else [expected]
    for said in (predicted, expected):
        value_ = score(name, said, *answers, choices=("a", "b", "1"))
        assert 0 <= value_ <= 1
    assert value_ == 1  # what was expected is right


@given(WORDS, WORDS)
def test_similarity_is_the_same_both_ways(one: str, other: str) -> None:
    assert anls(one, other) == anls(other, one)
    assert anls(f" {one.upper()}  ", other) == anls(one, other)


@given(st.floats(-1e6, 1e6).filter(lambda number: abs(number) > 1e-3), st.floats(-0.2, 0.2))
def test_numbers_are_right_within_a_twentieth(number: float, error: float) -> None:
    if abs(abs(error) - 0.05) > 1e-9:
        assert relaxed(str(number * (1 + error)), str(number)) == (abs(error) < 0.05)


@given(*[st.tuples(*[st.integers(0, 20)] * 4)] * 2)
def test_overlap(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    boxes = [(float(min(a, c)), float(min(b, d)), float(max(a, c)), float(max(b, d))) for a, b, c, d in (one, other)]
    same = overlap(boxes[0], boxes[1])
    assert 0 <= same <= 1
    assert same == overlap(boxes[1], boxes[0])
    moved = [tuple(10 * side + 7 for side in box) for box in boxes]
    assert overlap(*moved) == pytest.approx(same)


def test_no_answers_have_no_counts() -> None:
    for name, metric in METRICS.items():
        counts = metric.counts([])
        assert len(counts) == 0, name
        assert metric.scores(counts).shape == (0,)
        assert counts.sum(0).shape == counts.shape[1:]


def test_an_unknown_metric() -> None:
    check_names(["accuracy", "anls", "latency"])
    with pytest.raises(ValueError, match="there is no metric 'anl'; did you mean anls"):
        check_names(["anl"])
    with pytest.raises(ValueError, match="there is no metric 'qqqqqq'; there are accuracy, exact"):
        check_names(["qqqqqq"])


def test_counts_are_numbers() -> None:
    counts = METRICS["json"].counts([Case(json.dumps({"a": 1}), (json.dumps({"a": 1}),))])
    assert counts.dtype == np.float64
