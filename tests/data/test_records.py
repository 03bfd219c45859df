from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neo.data.records import CAPTION_PROMPT, parse_record

FOLDER = Path("/pictures")
ANSWER = {"from": "gpt", "value": "yes"}


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


def test_hub_style_texts_with_pictures_as_bytes_or_path() -> None:
    pictures = [{"bytes": b"one", "path": "x.png"}, {"bytes": None, "path": "two.png"}, b"three"]
    texts = [{"user": "What?", "assistant": "A cat."}, {"user": "And now?", "assistant": "A dog."}]
    messages = parse({"images": pictures, "texts": texts, "source": "zoo"})
    assert messages[0] == {"role": "user", "content": "What?", "image": [b"one", "/pictures/two.png", b"three"]}
    assert [message["content"] for message in messages[1:]] == ["A cat.", "And now?", "A dog."]


def test_parts_without_a_picture_take_those_of_the_record() -> None:
    asked = [
        {"type": "image", "text": None},
        {"type": "text", "text": "or", "image": None},
        {"type": "image", "image": None},
    ]
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": "The first."}]
    content = parse({"images": ["a.png", b"bytes"], "messages": turns})[0]["content"]
    assert [part.get("image", part.get("text")) for part in content] == ["/pictures/a.png", "or", b"bytes"]


def test_a_list_of_parts_without_picture_begins_with_those_of_the_record() -> None:
    turns = [{"role": "user", "content": [{"type": "text", "text": "What?"}]}, ANSWER]
    content = parse({"image": "a.png", "messages": turns})[0]["content"]
    assert [part["type"] for part in content] == ["image", "text"]


@pytest.mark.parametrize("spelling", [{"url": "a.png"}, {"path": "a.png"}, {"image": {"path": "a.png"}}])
def test_spellings_of_a_picture_in_a_part(spelling: dict[str, Any]) -> None:
    turns = [{"role": "user", "content": [{"type": "image", **spelling}]}, ANSWER]
    assert parse({"messages": turns})[0]["content"] == [{"type": "image", "image": "/pictures/a.png"}]


@pytest.mark.parametrize("address", ["data:image/png;base64,aGk=", "https://example.com/a.png"])
def test_addresses_are_left_to_the_processor(address: str) -> None:
    turns = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": address}}]}, ANSWER]
    assert parse({"messages": turns})[0]["content"] == [{"type": "image", "image": address}]


def test_question_caption_and_plain_text() -> None:
    question, answer = parse({"image": "a.png", "question": "What?", "answer": "A cat."})
    assert question == {"role": "user", "content": "What?", "image": ["/pictures/a.png"]}
    assert answer == {"role": "assistant", "content": "A cat."}
    for name in ("caption", "text"):
        asked, caption = parse({"image": b"picture", name: "A cat."})
        assert asked == {"role": "user", "content": CAPTION_PROMPT, "image": [b"picture"]}
        assert caption == answer
    assert parse({"file_name": "a.png", "text": "A cat."})[0]["image"] == ["/pictures/a.png"]
    assert parse({"text": "Once."}) == [{"role": "assistant", "content": "Once."}]
    other = parse_record({"image": "a", "caption": "A cat."}, "x", FOLDER, "cats", 0, caption_prompt="Say it.")
    assert other.messages[0]["content"] == "Say it."


def test_pictures_in_memory_pass_as_they_are() -> None:
    picture, array = Image.new("RGB", (2, 2)), np.zeros((2, 2, 3), np.uint8)
    messages = parse({"images": [picture, array], "conversations": [{"from": "human", "value": "?"}, ANSWER]})
    assert messages[0]["image"][0] is picture
    assert messages[0]["image"][1] is array


def test_absent_fields_may_be_null() -> None:
    record = {"conversations": None, "image": None, "images": ["a.png"], "family": None}
    turns = [{"role": "user", "from": None, "content": "?"}, {"role": "assistant", "content": "!", "value": None}]
    assert parse({**record, "messages": turns})[0]["image"] == ["/pictures/a.png"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], ["must be an object", "list"]),
        ({"image": "a.png"}, ["none of conversations, messages", "it has image"]),
        ({"conversations": []}, ["'conversations'", "at least one turn"]),
        ({"conversations": ["hello"]}, ["conversations[0]", "must be an object"]),
        ({"conversations": [{"from": "robot", "value": ""}]}, ["conversations[0].from", "'robot'", "human"]),
        ({"conversations": [{"from": "gpt"}]}, ["conversations[0].content", "must be a text", "nothing"]),
        ({"conversations": [{"from": "human", "value": "hi"}]}, ["nothing to learn"]),
        ({"image": 7, "conversations": [ANSWER]}, ["image must be a path", "not a number"]),
        ({"image": "", "conversations": [ANSWER]}, ["image must be a path", "not an empty text"]),
        ({"images": ["a", 1], "conversations": [ANSWER]}, ["images[1] must be a path", "not a number"]),
        ({"images": [{"bytes": None}], "conversations": [ANSWER]}, ["images[0] must be a path", "not nothing"]),
        ({"texts": [{"user": "What?"}]}, ["texts[0].assistant must be a text, not nothing"]),
        ({"question": "What?"}, ["record 3: answer must be a text, not nothing"]),
        ({"image": "a", "caption": " "}, ["'caption' is empty"]),
        ({"caption": "A cat."}, ["'caption' needs a picture"]),
        ({"image": "a", "images": ["b"], "conversations": [ANSWER]}, ["both 'image' and 'images'"]),
        ({"messages": [{"role": ["user"], "content": "x"}]}, ["messages[0].role", "['user']"]),
        (
            {"image": "a", "conversations": [{"from": "human", "value": "<image><image>"}, ANSWER]},
            ["hold 2 <image>", "gives 1 pictures"],
        ),
        ({"conversations": [{"from": "human", "value": "<image>"}, ANSWER]}, ["hold 1 <image>", "gives 0"]),
        ({"messages": [{"role": "user", "content": [{"type": "sound"}]}]}, ["content[0]", "'image'"]),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]}, ["hold 1 <image>"]),
    ],
)
def test_errors_name_record_and_field(data: Any, words: list[str]) -> None:
    with pytest.raises(ValueError, match="record 3") as error:
        parse(data)
    for word in words:
        assert word in str(error.value)
