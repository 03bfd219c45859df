"""One training example as the project sees it, and how people's records become one.

A record is an object that holds a conversation, written in one of these ways:

- LLaVA, ShareGPT: `{"conversations": [{"from": "human" | "gpt" | "system", "value": text}]}`;
- chat messages: `{"messages": [{"role": ..., "content": text or list of parts}]}`; both pairs of names go in both;
- hub style: `{"texts": [{"user": text, "assistant": text}]}`;
- `{"question": text, "answer": text}`;
- `{"caption": text}`, with a picture, for which `"text"` is another name;
- `{"text": text}` without a picture: a text that is learned from its first word to its last.

Its pictures are under `image`, `images` or `file_name`, or inside the parts of a message; each is a path, the bytes
of a picture file, `{"bytes": ..., "path": ...}` as in Parquet files, or a picture in memory. `family` tells the kind
of task. Other fields are not read.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PLACEHOLDER = "<image>"
"""Where a picture stands in a user's text."""
ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
"""Names of roles that are understood, and the project's name for each."""
FORMS = ("conversations", "messages", "texts", "question", "caption", "text")
"""Fields that hold a conversation; the first that a record has is read."""
PICTURES = ("image", "images", "file_name")
"""Fields that hold pictures; the first that a record has is read."""
FIELDS = (*FORMS, "answer", *PICTURES, "family", "answers", "choices", "metric", "schema")
"""All fields that are read; the last four by evaluation (`neo.evaluation.questions`)."""
CAPTION_PROMPT = "Describe the image."
"""What a caption is taken to answer, by default."""
_ADDRESSES = ("data:", "http://", "https://")


class PlaceholderError(ValueError):
    """A record has more or fewer places for pictures than pictures."""


class NothingToLearnError(ValueError):
    """A record has no answer, or an empty one."""


@dataclass(frozen=True)
class Record:
    """One conversation to learn from."""

    messages: list[dict[str, Any]]
    """What the processor reads, pictures included."""
    source: str
    """Name of its source."""
    index: int
    """Its number in that source, from 0."""
    family: str = ""
    """The kind of task, where the source knows it."""
    where: str = field(default="", compare=False)
    """The place it was read from, as people find it: the file, and its line, row or sample in it."""

    @property
    def name(self) -> str:
        """How messages and logs name this record."""
        return f"{self.source}[{self.index}]"

    def problem(self, reason: object) -> str:
        """Why it cannot be used, with the place it was read from before that."""
        return f"{self.where}: {reason}" if self.where else str(reason)


def known_fields(names: Iterable[str], where: str) -> list[str]:
    """Those columns of a table that are read.

    Raises:
        ValueError: there are none.
    """
    names = list(names)
    known = [name for name in names if name in FIELDS]
    if not known:
        raise ValueError(f"{where}: no column is one of {', '.join(FIELDS)}; the columns are {', '.join(names)}")
    return known


def parse_record(
    data: Any, where: str, folder: Path, source: str, index: int, caption_prompt: str = CAPTION_PROMPT
) -> Record:
    """Read one record, written in any of the ways above.

    Args:
        data: the object: what JSON, Parquet or Python holds.
        where: file and record number or line, for messages.
        folder: what relative picture paths are relative to.
        source: name of the source.
        index: the record's number in its source, from 0.
        caption_prompt: what the user asks where the record has only a caption.

    Raises:
        ValueError: a field is missing or not what it should be; the message names record and field.
    """
    form = _form(data, where)
    if form is None:
        names = ", ".join(str(name) for name, value in data.items() if value is not None)
        raise ValueError(f"{where}: the record has none of {', '.join(FORMS)}; it has {names or 'no field'}")
    pictures = _pictures(data, where, folder)
    messages = _turns(data, form, where, folder) or _exchange(data, form, where, bool(pictures), caption_prompt)
    if not any(message["role"] == "assistant" for message in messages):
        raise NothingToLearnError(
            f"{where}: '{form}' has no turn of the assistant ('gpt'), so there is nothing to learn"
        )
    _place(pictures, messages, where)
    return Record(messages, source, index, str(data.get("family") or ""), where)


def parse_question(data: Any, where: str, folder: Path, question: str | None = None) -> list[dict[str, Any]]:
    """The messages of a record that is to be answered: up to its last question, whether it has an answer or not.

    Args:
        data, where, folder: as in `parse_record`.
        question: asked about its pictures in place of what it says itself.

    Raises:
        ValueError: as `parse_record`, or it asks nothing.
    """
    form = _form(data, where)
    pictures = _pictures(data, where, folder)
    if question is not None or form == "question":
        asked = _text(data, "question", f"{where}: ") if question is None else question
        messages = [{"role": "user", "content": asked}]
    else:
        messages = _turns(data, form, where, folder) if form else []
        while messages and messages[-1]["role"] != "user":
            messages.pop()
        if not messages:
            raise ValueError(f"{where}: the record asks nothing; it needs a 'question', or messages of a user")
    _place(pictures, messages, where)
    return messages


def _form(data: Any, where: str) -> str | None:
    """The field that holds a record's conversation."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}: a record must be an object, not {_kind(data)}")
    return next((name for name in FORMS if data.get(name) is not None), None)


def _turns(data: Mapping[str, Any], form: str, where: str, folder: Path) -> list[dict[str, Any]]:
    """The messages of a record that is a list of turns; none of another."""
    if form in ("conversations", "messages"):
        return [_message(turn, place, folder) for place, turn in _objects(data, form, where)]
    if form == "texts":
        return [
            {"role": role, "content": _text(pair, role, f"{place}.")}
            for place, pair in _objects(data, form, where)
            for role in ("user", "assistant")
        ]
    return []


def _exchange(data: Mapping[str, Any], form: str, where: str, seen: bool, caption_prompt: str) -> list[dict[str, Any]]:
    """The messages of a record with a question, a caption or a plain text; `seen`: it has a picture."""
    if form == "caption" and not seen:
        raise ValueError(f"{where}: 'caption' needs a picture under 'image', and there is none")
    said = "answer" if form == "question" else form
    answer = {"role": "assistant", "content": _text(data, said, f"{where}: ")}
    if not answer["content"].strip():
        raise NothingToLearnError(f"{where}: '{said}' is empty, so there is nothing to learn")
    if form == "text" and not seen:
        return [answer]
    asked = _text(data, "question", f"{where}: ") if form == "question" else caption_prompt
    return [{"role": "user", "content": asked}, answer]


def _message(turn: Mapping[str, Any], where: str, folder: Path) -> dict[str, Any]:
    role_field = "role" if turn.get("from") is None else "from"
    role = turn.get(role_field)
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"{where}.{role_field} must be one of {', '.join(ROLES)}, not {role!r}")
    text_field = "content" if turn.get("value") is None else "value"
    content = turn.get(text_field)
    if isinstance(content, list):
        content = [_part(part, f"{where}.{text_field}[{number}]", folder) for number, part in enumerate(content)]
    else:
        content = _text(turn, text_field, f"{where}.")
    return {"role": ROLES[role], "content": content}


def _part(part: Any, where: str, folder: Path) -> dict[str, Any]:
    """A part of a message. A picture that it does not hold itself, None, is one of the record's pictures."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return {"type": "text", "text": _text(part, "text", f"{where}.")}
    if kind not in ("image", "image_url"):
        raise ValueError(f"{where} must be an object of type 'text' or 'image', not {part!r:.60}")
    name = next((name for name in ("image", "image_url", "url", "path") if part.get(name) is not None), None)
    if name is None:
        return {"type": "image", "image": None}
    value = part[name]
    if name == "image_url" and isinstance(value, Mapping):  # OpenAI's spelling
        value = value.get("url")
    return {"type": "image", "image": _picture(value, f"{where}.{name}", folder)}


def _pictures(data: Mapping[str, Any], where: str, folder: Path) -> list[Any]:
    if data.get("image") is not None and data.get("images") is not None:
        raise ValueError(f"{where}: the record has both 'image' and 'images'; put all its pictures under one of them")
    name = next((name for name in PICTURES if data.get(name) is not None), None)
    if name is None:
        return []
    value = data[name]
    if isinstance(value, list):
        return [_picture(one, f"{where}: {name}[{number}]", folder) for number, one in enumerate(value)]
    return [_picture(value, f"{where}: {name}", folder)]


def _picture(value: Any, where: str, folder: Path) -> Any:
    """A picture as the processor opens it: a path, the bytes of a file, or a picture in memory."""
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes | Image.Image | np.ndarray) or (
        isinstance(value, str) and value.startswith(_ADDRESSES)  # the processor knows what to do with them
    ):
        return value
    if isinstance(value, str | PathLike) and str(value):
        return str(folder / value)  # an absolute path stays as it is
    raise ValueError(f"{where} must be a path, a picture, the bytes of a picture file or a list, not {_kind(value)}")


def _place(pictures: list[Any], messages: list[dict[str, Any]], where: str) -> None:
    """Put each picture where the user's turns have a place for one; the first turn takes all if none has."""
    users = [message for message in messages if message["role"] == "user"]
    places = sum(map(_places, users))
    rest = iter(pictures)
    if pictures and users and not places and not any(map(_has_picture, users)):
        content = users[0]["content"]
        if isinstance(content, str):
            users[0]["image"] = pictures
        else:
            users[0]["content"] = [{"type": "image", "image": picture} for picture in pictures] + content
    elif places != len(pictures):
        raise PlaceholderError(
            f"{where}: the user's turns hold {places} {PLACEHOLDER} but the record gives {len(pictures)} pictures"
        )
    else:
        for message in users:
            if isinstance(message["content"], list):
                message["content"] = [
                    part if _filled(part) else {**part, "image": next(rest)} for part in message["content"]
                ]
            elif count := _places(message):
                message["image"] = [next(rest) for _ in range(count)]


def _places(message: Mapping[str, Any]) -> int:
    """Places for the record's pictures: `<image>` in a text, parts of type image without a picture in a list."""
    content = message["content"]
    return content.count(PLACEHOLDER) if isinstance(content, str) else sum(not _filled(part) for part in content)


def _filled(part: Mapping[str, Any]) -> bool:
    return part["type"] == "text" or part["image"] is not None


def _has_picture(message: Mapping[str, Any]) -> bool:
    return isinstance(message["content"], list) and any(part["type"] == "image" for part in message["content"])


def _objects(data: Mapping[str, Any], name: str, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The objects of a list that must not be empty, each with its place."""
    items = data[name]
    if not isinstance(items, list) or not items:
        raise ValueError(f"{where}: '{name}' must be a list with at least one turn, not {_kind(items)}")
    for number, item in enumerate(items):
        place = f"{where}: {name}[{number}]"
        if not isinstance(item, Mapping):
            raise ValueError(f"{place} must be an object, not {_kind(item)}")
        yield place, item


def _text(data: Mapping[str, Any], name: str, before: str) -> str:
    """A field that must be a text; `before` is what messages put before its name."""
    value = data.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{before}{name} must be a text, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    """What a person calls a value of a wrong type."""
    if isinstance(value, str | list):
        return ("a " if value else "an empty ") + ("text" if isinstance(value, str) else "list")
    kinds = {type(None): "nothing", bool: "a truth value", int: "a number", float: "a number", dict: "an object"}
    return kinds.get(type(value), f"of type {type(value).__name__}")
