"""One training example as the project sees it, and how people's records become one.

Three ways of writing an example are read:

- LLaVA: `{"image": path or list, "conversations": [{"from": "human"|"gpt"|"system", "value": text}]}`;
- the same with `role` and `content` in place of `from` and `value`;
- chat messages: `{"messages": [{"role": ..., "content": text or list of parts}]}`, with `image` or `images`
  beside them or pictures inside the parts.

A relative picture path is resolved against the folder of the record file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PLACEHOLDER = "<image>"
"""Where a picture stands in a user's text."""
ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
"""Names of roles that are understood, and the project's name for each."""


@dataclass(frozen=True)
class Record:
    """One conversation to learn from.

    `messages` is what the processor reads, pictures included; `source` and `index` say where the record came
    from, so that it can be named in messages; `family` is the kind of task, where the source knows it.
    """

    messages: list[dict[str, Any]]
    source: str
    index: int
    family: str = ""

    @property
    def name(self) -> str:
        """How messages and logs name this record."""
        return f"{self.source}[{self.index}]"


def parse_record(data: Any, where: str, folder: Path, source: str, index: int) -> Record:
    """Read one record in any of the three ways.

    Args:
        data: the decoded JSON value.
        where: file and record number or line, for messages.
        folder: what relative picture paths are relative to.
        source: name of the source.
        index: the record's number in its source, from 0.

    Raises:
        ValueError: a field is missing or not what it should be; the message names record and field.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{where}: a record must be an object, not {_kind(data)}")
    field = next((name for name in ("conversations", "messages") if name in data), None)
    if field is None:
        raise ValueError(f"{where}: the record has neither 'conversations' nor 'messages'; one is needed")
    turns = data[field]
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"{where}: '{field}' must be a list with at least one turn, not {_kind(turns)}")
    messages = [_message(turn, f"{where}: {field}[{number}]", folder) for number, turn in enumerate(turns)]
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError(f"{where}: '{field}' has no turn of the assistant ('gpt'), so there is nothing to learn")
    _place_images(messages, _images(data, where, folder), where)
    return Record(messages, source, index, str(data.get("family", "")))


def _message(turn: Any, where: str, folder: Path) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise ValueError(f"{where} must be an object, not {_kind(turn)}")
    role_field = "from" if "from" in turn else "role"
    text_field = "value" if "value" in turn else "content"
    role = turn.get(role_field)
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"{where}.{role_field} must be one of {', '.join(ROLES)}, not {role!r}")
    content = turn.get(text_field)
    if isinstance(content, list):
        content = [_part(part, f"{where}.{text_field}[{number}]", folder) for number, part in enumerate(content)]
    elif not isinstance(content, str):
        raise ValueError(f"{where}.{text_field} must be a text, not {_kind(content)}")
    return {"role": ROLES[role], "content": content}


def _part(part: Any, where: str, folder: Path) -> dict[str, Any]:
    if not isinstance(part, Mapping) or part.get("type") not in ("text", "image"):
        raise ValueError(f"{where} must be an object of type 'text' or 'image'")
    field = part["type"]
    value = part.get(field)
    if not isinstance(value, str):
        raise ValueError(f"{where}.{field} must be a text, not {_kind(value)}")
    return {"type": field, field: value if field == "text" else _resolve(value, folder)}


def _images(data: Mapping[str, Any], where: str, folder: Path) -> list[str]:
    field = "images" if "images" in data else "image"
    if {"image", "images"} <= data.keys():
        raise ValueError(f"{where}: the record has both 'image' and 'images'; put all its pictures under one of them")
    value = data.get(field)
    paths = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError(f"{where}: '{field}' must be a path or a list of paths, not {_kind(value)}")
    return [_resolve(path, folder) for path in paths]


def _resolve(path: str, folder: Path) -> str:
    return str(folder / path)  # an absolute path stays as it is


def _place_images(messages: list[dict[str, Any]], images: list[str], where: str) -> None:
    """Give each user turn the pictures of its placeholders; the first one takes all if there are none."""
    users = [message for message in messages if message["role"] == "user" and isinstance(message["content"], str)]
    counts = [message["content"].count(PLACEHOLDER) for message in users]
    if images and users and not sum(counts):
        users[0]["image"] = images
    elif sum(counts) != len(images):
        raise ValueError(
            f"{where}: the user's turns hold {sum(counts)} {PLACEHOLDER} but the record gives {len(images)} pictures"
        )
    else:
        rest = iter(images)
        for message, count in zip(users, counts, strict=True):
            if count:
                message["image"] = [next(rest) for _ in range(count)]


def _kind(value: Any) -> str:
    names = {type(None): "nothing", str: "a text", list: "a list", dict: "an object", bool: "a truth value"}
    return names.get(type(value), f"a {type(value).__name__}") if value != [] else "an empty list"
