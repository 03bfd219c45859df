"""Records as questions: what is asked, what is expected, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from answering import write_colors
from PIL import Image

from neo.evaluation.questions import HOW_TO_CHOOSE, Question, open_questions
from neo.synthetic import generate


def one(record: dict[str, Any]) -> Question:
    return open_questions([record])[0]


def test_rows_of_questions(tmp_path: Path) -> None:
    questions = open_questions(write_colors(tmp_path))
    assert len(questions) == 6
    assert questions.name == "colors"
    assert questions[1].text == "What color is picture 1?"
    assert questions[1].expected == ("green",)
    assert questions[1].family == "family 1"
    assert questions[1].pictures == [str(tmp_path / "1.png")]
    assert questions[1].where == f"{tmp_path / 'colors.jsonl'}, line 2"


def test_the_last_turn_of_the_assistant_is_expected() -> None:
    turns = [("human", "<image>\nWhat is it?"), ("gpt", "a circle"), ("human", "Its color?"), ("gpt", "red")]
    record = {"image": "a.png", "conversations": [{"from": who, "value": said} for who, said in turns]}
    question = one(record)
    assert question.expected == ("red",)
    assert question.text == "user: What is it?\nassistant: a circle\nuser: Its color?"
    assert question.pictures == ["a.png"]
    assert one(record | {"answers": ["red", "dark red"]}).expected == ("red", "dark red")


def test_a_caption_is_expected_of_its_picture() -> None:
    question = one({"image": "a.png", "caption": "A cat."})
    assert (question.text, question.expected) == ("Describe the image.", ("A cat.",))


@pytest.mark.parametrize(("answer", "text"), [(3, "3"), ([1, 2, 3, 4], "[1, 2, 3, 4]"), ({"a": "é"}, '{"a": "é"}')])
def test_answers_may_be_json(answer: Any, text: str) -> None:
    assert one({"question": "What?", "answer": answer}).expected == (text,)


def test_choices_are_written_below_the_question() -> None:
    asked = {"image": "a.png", "question": "Which?", "answer": "B", "choices": ["cat", "dog"]}
    assert one(asked).text == f"Which?\nA. cat\nB. dog\n{HOW_TO_CHOOSE}"
    assert one(asked).pictures == ["a.png"]
    assert one(asked | {"question": "A cat or a dog?"}).text == "A cat or a dog?"
    years = {"question": "In 2024, how many cats?", "answer": "2", "choices": ["2", "4"]}
    assert one(years).text == f"In 2024, how many cats?\nA. 2\nB. 4\n{HOW_TO_CHOOSE}"


def test_metric_and_schema() -> None:
    question = one({"question": "What?", "answer": "{}", "metric": "json", "schema": '{"type": "object"}'})
    assert question.metric == "json"
    assert question.schema == {"type": "object"}
    schema = {"type": "array"}
    assert open_questions([{"question": "What?", "answer": "[]"}], schema=schema)[0].schema == schema


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"question": "What?"}, r"record 0 \(from 0\): no answer is expected; give 'answer', 'answers' or"),
        ({"question": "What?", "answers": []}, "'answers' must be a list with at least one answer"),
        ({"question": "What?", "answer": ""}, "no answer is expected"),
        ({"question": "What?", "answers": ["a", " "]}, "no answer is expected"),
        ({"conversations": [{"from": "human", "value": "What?"}]}, "no answer is expected"),
        ({"text": "Only words."}, "the record asks nothing"),
        ({"answer": "red"}, "none of conversations"),
        ({"question": "What?", "answer": "a", "metric": "anl"}, r"\(from 0\): there is no metric 'anl'; did you mean"),
        ({"question": "What?", "answer": "a", "metric": "accuracy"}, "there is no metric 'accuracy'"),
        ({"question": "What?", "answer": "a", "choices": ["a"]}, "'choices' must be a list of 2 to 26 texts"),
        ({"question": "What?", "answer": "a", "schema": "{"}, "'schema' is not JSON"),
        ({"question": "What?", "answer": "a", "schema": [1]}, "'schema' must be a JSON schema"),
    ],
)
def test_what_is_refused(record: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        one(record)


def test_so_many_of_each_family() -> None:
    records = [
        {"question": f"What is {n}?", "answer": str(n), "family": "rare" if n % 10 == 0 else "often"} for n in range(50)
    ]
    some = open_questions(records, number=7)
    families = [some[place].family for place in range(len(some))]
    assert (families.count("rare"), families.count("often")) == (5, 7)
    again = open_questions(records, number=7)
    assert [again[place].text for place in range(12)] == [some[place].text for place in range(12)]
    assert open_questions(records).fingerprint != some.fingerprint == again.fingerprint
    with pytest.raises(ValueError, match="number=0 must be at least 1"):
        open_questions(records, number=0)
    with pytest.raises(ValueError, match="the test set holds no record"):
        open_questions([])


def test_fields_of_parquet(tmp_path: Path) -> None:
    rows = [{"question": "Which?", "answers": ["a", "b"], "choices": ["a", "b", "c"], "metric": "choice"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    question = open_questions(tmp_path / "test.parquet")[0]
    assert question.expected == ("a", "b")
    assert question.choices == ("a", "b", "c")
    assert question.metric == "choice"


def test_the_fingerprint_tells_other_answers(tmp_path: Path) -> None:
    path = write_colors(tmp_path)
    before = open_questions(path).fingerprint
    assert open_questions(path).fingerprint == before
    path.write_text(path.read_text().replace('"red"', '"dark red"'))
    assert open_questions(path).fingerprint != before


def test_the_fingerprint_tells_other_pictures(tmp_path: Path) -> None:
    red, blue = (Image.new("RGB", (40, 30), color) for color in ("red", "blue"))
    for folder, picture in (("red", red), ("moved", red), ("blue", blue)):
        (tmp_path / folder).mkdir()
        picture.save(tmp_path / folder / "a.png")
    records = [{"image": "a.png", "question": "What color?", "answer": "red"}]
    prints = [open_questions(records, str(tmp_path / folder)).fingerprint for folder in ("red", "moved", "blue")]
    assert prints[0] == prints[1] != prints[2]
    in_memory = [open_questions([records[0] | {"image": one}]).fingerprint for one in (red, red.copy(), blue)]
    assert in_memory[0] == in_memory[1] != in_memory[2]
    with pytest.raises(ValueError, match=r"^test_data, record 0 \(from 0\): .*none/a\.png: cannot read the picture"):
        _ = open_questions(records, str(tmp_path / "none")).fingerprint


@pytest.mark.parametrize(("field", "other"), [("family", "f"), ("schema", {"type": "object"}), ("metric", "exact")])
def test_the_fingerprint_tells_other_fields(field: str, other: Any) -> None:
    record = {"question": "What?", "answer": "a"}
    assert open_questions([record | {field: other}]).fingerprint != open_questions([record]).fingerprint


def test_a_schema_that_is_none_is_told_at_once() -> None:
    record = {"question": "What?", "answer": "{}"}
    with pytest.raises(ValueError, match=r"^test_data, record 0 .*: the schema is not a JSON schema \('objekt' is "):
        open_questions([record | {"schema": {"type": "objekt"}}])
    with pytest.raises(ValueError, match=r"^schema: the schema is not a JSON schema"):
        open_questions([record], schema={"type": "objekt"})


@pytest.mark.parametrize("option", [{"image_root": "."}, {"schema": {}}])
def test_options_of_records_are_not_for_drawn_questions(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^synthetic:text: image_root and schema are for records"):
        open_questions("synthetic:text", **option)


def test_drawn_pictures_are_those_of_the_test_split() -> None:
    questions = open_questions("synthetic:receipt,text", number=3)
    assert len(questions) == 9
    families = [questions[place].family for place in range(9)]
    assert families == ["receipt, total"] * 3 + ["receipt, JSON"] * 3 + ["text only"] * 3
    last = generate(0, 2, "test", {"text": 1.0})
    assert (questions[8].text, questions[8].expected) == (last.turns[0].question, (last.turns[0].answer,))
    totals = [questions[place] for place in (2, 1, 0)]  # in any order the same
    assert len({question.pictures[0].tobytes() for question in totals}) == 3
    assert isinstance(totals[0].pictures[0], Image.Image)
    assert totals[0] == open_questions("synthetic:receipt", number=3)[2]
    assert json.loads(questions[3].expected[0])
    with pytest.raises(ValueError, match="no family 'receit' of drawn pictures; did you mean receipt"):
        open_questions("synthetic:receit")
