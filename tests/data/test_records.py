from pathlib import Path
from typing import Any

import pytest

from neo.data.records import parse_record

FOLDER = Path("/pictures")


def parse(data: Any) -> list[dict[str, Any]]:
    return parse_record(data, "file.json, record 3", FOLDER, "file", 2).messages


def test_llava_record() -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
    record = parse_record({"image": "a/b.jpg", "conversations": turns}, "x", FOLDER, "cats", 4)
    assert record.messages == [
        {"role": "user", "content": "<image>\nWhat?", "image": ["/pictures/a/b.jpg"]},
        {"role": "assistant", "content": "A cat."},
    ]
    assert record.name == "cats[4]"


def test_role_and_content_with_system_and_absolute_path() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": "A <image> tag."},
    ]
    messages = parse({"image": "/else/b.jpg", "conversations": turns})
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert messages[1] == {"role": "user", "content": "What?", "image": ["/else/b.jpg"]}
    assert messages[2]["content"] == "A <image> tag."


def test_each_turn_takes_the_pictures_of_its_placeholders() -> None:
    turns = [
        {"from": "human", "value": "<image> first"},
        {"from": "gpt", "value": "one"},
        {"from": "human", "value": "<image> and <image>"},
        {"from": "gpt", "value": "two"},
    ]
    messages = parse({"image": ["1.png", "2.png", "3.png"], "conversations": turns})
    assert messages[0]["image"] == ["/pictures/1.png"]
    assert messages[2]["image"] == ["/pictures/2.png", "/pictures/3.png"]


def test_messages_with_pictures_in_parts() -> None:
    content = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]
    messages = parse({"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "A dog."}]})
    assert messages[0]["content"][0] == {"type": "image", "image": "/pictures/a.png"}


ANSWER = {"from": "gpt", "value": "yes"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], ["must be an object", "list"]),
        ({"image": "a.png"}, ["neither 'conversations' nor 'messages'"]),
        ({"conversations": []}, ["'conversations'", "at least one turn"]),
        ({"conversations": ["hello"]}, ["conversations[0]", "must be an object"]),
        ({"conversations": [{"from": "robot", "value": ""}]}, ["conversations[0].from", "'robot'", "human"]),
        ({"conversations": [{"from": "gpt"}]}, ["conversations[0].content", "must be a text", "nothing"]),
        ({"conversations": [{"from": "human", "value": "hi"}]}, ["nothing to learn"]),
        ({"image": 7, "conversations": [ANSWER]}, ["'image'", "a path or a list of paths"]),
        ({"images": [1], "conversations": [ANSWER]}, ["'images'"]),
        ({"image": "a", "images": ["b"], "conversations": [ANSWER]}, ["both 'image' and 'images'"]),
        ({"messages": [{"role": ["user"], "content": "x"}]}, ["messages[0].role", "['user']"]),
        (
            {"image": "a", "conversations": [{"from": "human", "value": "<image><image>"}, ANSWER]},
            ["hold 2 <image>", "gives 1 pictures"],
        ),
        ({"conversations": [{"from": "human", "value": "<image>"}, ANSWER]}, ["hold 1 <image>", "gives 0"]),
        ({"messages": [{"role": "user", "content": [{"type": "sound"}]}]}, ["content[0]", "'image'"]),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, ["content[0].image", "a text"]),
    ],
)
def test_errors_name_record_and_field(data: Any, words: list[str]) -> None:
    with pytest.raises(ValueError, match="record 3") as error:
        parse(data)
    for word in words:
        assert word in str(error.value)
