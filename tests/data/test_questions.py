"""Records to be answered."""

import json
from pathlib import Path

import pytest
from PIL import Image

from neo.data.questions import Questions
from neo.data.records import parse_question

HERE = Path("/data")


def user(text: str, **fields: object) -> dict:
    return {"role": "user", "content": text, **fields}


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        ({"question": "Why?"}, [user("Why?")]),
        ({"question": "Why?", "answer": "So.", "image": "a.png"}, [user("Why?", image=["/data/a.png"])]),
        ({"conversations": [{"from": "human", "value": "1?"}, {"from": "gpt", "value": "2"}]}, [user("1?")]),
        ({"texts": [{"user": "1?", "assistant": "2"}]}, [user("1?")]),
        (
            {"messages": [user("1?"), {"role": "assistant", "content": "2"}, user("And 3?")]},
            [user("1?"), {"role": "assistant", "content": "2"}, user("And 3?")],
        ),
    ],
)
def test_up_to_the_last_question(record: dict, messages: list) -> None:
    assert parse_question(record, "here", HERE) == messages


def test_a_question_for_all_takes_the_place_of_theirs() -> None:
    record = {"image": "a.png", "caption": "A cat.", "question": "Why?"}
    assert parse_question(record, "here", HERE, "What?") == [user("What?", image=["/data/a.png"])]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"image": "a.png"}, "asks nothing"),
        ({"image": "a.png", "caption": "A cat."}, "asks nothing"),
        ({"messages": [{"role": "assistant", "content": "2"}]}, "asks nothing"),
        ({"question": 3}, "question must be a text"),
        ({"question": "<image> and <image>", "image": "a.png"}, "2 <image> but the record gives 1"),
        ("words", "a record must be an object"),
    ],
)
def test_what_cannot_be_asked_is_told_with_its_place(record: object, reason: str) -> None:
    with pytest.raises(ValueError, match=f"here: .*{reason}"):
        parse_question(record, "here", HERE)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "more/c.webp"):
        Image.new("RGB", (8, 8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_a_folder_of_pictures(pictures: Path) -> None:
    questions = Questions(str(pictures), "What?")
    assert [questions[number].where for number in range(len(questions))] == [
        str(pictures / name) for name in ("a.JPG", "b.png", "more/c.webp")
    ]
    assert questions[0].messages == [user("What?", image=[str(pictures / "a.JPG")])]


def test_records_beside_pictures_come_first_unless_said(pictures: Path) -> None:
    (pictures / "notes.txt").unlink()
    (pictures / "asked.jsonl").write_text(json.dumps({"image": "b.png", "question": "Why?"}) + "\n")
    assert Questions(str(pictures))[0].messages == [user("Why?", image=[str(pictures / "b.png")])]
    assert len(Questions(str(pictures), "What?", kind="pictures")) == 3


def test_what_is_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pictures alone ask nothing"):
        Questions(str(pictures))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="neither records nor pictures"):
        Questions(str(empty), "What?")


def test_the_fingerprint_changes_with_the_files(pictures: Path) -> None:
    before = Questions(str(pictures), "What?").fingerprint
    assert Questions(str(pictures), "Why?").fingerprint == before
    Image.new("RGB", (9, 9)).save(pictures / "b.png")
    assert Questions(str(pictures), "What?").fingerprint != before
