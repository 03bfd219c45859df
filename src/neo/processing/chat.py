"""Messages to the chat format of NEO: `<|im_start|>{role}\\n{text}<|im_end|>\\n` for each turn.

A conversation is a list of messages `{"role": "system" | "user" | "assistant", "content": ...}`. The content
is a string, with the turn's picture or list of pictures under "image" and `<image>` in a user's string as
their placeholder; or a list of parts `{"type": "text", "text": ...}` and `{"type": "image", "image": ...}`,
in which `<image>` is text. Pictures belong to user turns. An empty system message is left out.

Where pictures stand:

- in strings with as many `<image>` as pictures: each picture takes the next placeholder, if need be that of
  a later turn (records may list all pictures at the first turn, if this has a placeholder);
- in a turn without placeholder: one picture goes before the text as `<image>\\n`, several as
  `Image-1: <image>\\nImage-2: <image>\\n`, numbered by their place in the conversation;
- in a list of parts: where they are listed, on lines of their own, those next to one another numbered so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from .tokenizer import IM_END_TOKEN, IM_START_TOKEN

ROLES = ("system", "user", "assistant")
PLACEHOLDER = "<image>"

CHAT_TEMPLATE = """\
{%- set seen = namespace(images=0) -%}
{%- for message in messages -%}
  {%- set parts = message.content -%}
  {%- if parts is not string -%}
    {%- set parts = parts | rejectattr('text', 'equalto', '') | list -%}
  {%- endif -%}
  {%- if parts or message.role != 'system' -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- if message.role == 'assistant' -%}
      {%- generation -%}
        {{- parts if parts is string else parts | map(attribute='text') | join -}}
        {{- '<|im_end|>\\n' -}}
      {%- endgeneration -%}
    {%- else -%}
      {%- if parts is string -%}
        {{- parts -}}
        {%- if message.role == 'user' -%}
          {%- set seen.images = seen.images + parts.split('<image>') | length - 1 -%}
        {%- endif -%}
      {%- else -%}
        {%- for part in parts -%}
          {%- if part.type == 'text' -%}
            {{- part.text -}}
          {%- else -%}
            {%- set seen.images = seen.images + 1 -%}
            {%- set before = loop.previtem.type if not loop.first else '' -%}
            {%- set after = loop.nextitem.type if not loop.last else '' -%}
            {%- if before == 'text' and not loop.previtem.text.endswith('\\n') -%}{{- '\\n' -}}{%- endif -%}
            {%- if before not in ('', 'text') or after not in ('', 'text') -%}
              {{- 'Image-' + seen.images | string + ': ' -}}
            {%- endif -%}
            {{- '<image>' -}}
            {%- if after -%}{{- '\\n' -}}{%- endif -%}
          {%- endif -%}
        {%- endfor -%}
      {%- endif -%}
      {{- '<|im_end|>\\n' -}}
    {%- endif -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""The same format in Jinja, for others to render. It knows strings and lists of parts, not "image"."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: its texts and, as indices into the conversation's pictures, its pictures, in order."""

    role: str
    parts: tuple[str | int, ...]


class Conversation(NamedTuple):
    """Turns in order, without empty system messages, and the pictures that they point to."""

    turns: list[Turn]
    images: list[Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the prompt: a special token, or plain text, or a picture (its index)."""

    special: str = ""
    text: str = ""
    image: int | None = None
    learn_from: int | None = None
    """Index in the text (0 for a special token) from which the model learns to say it; None: nowhere."""


def parse(messages: Any, open_image: Callable[[Any], Sequence[Any]] = lambda source: [source]) -> Conversation:
    """Check and normalise messages as described at the head of this file.

    Args:
        messages: list of messages.
        open_image: called on each picture as given, in order; returns the one or more pictures that stand
            for it (one that is cut into tiles gives several).

    Raises:
        ValueError: the sentence names the turn, counted from 1.
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError("messages must be a non-empty list of {'role': ..., 'content': ...}.")
    drafts = [_draft(message, number) for number, message in enumerate(messages, 1)]
    attached = [source for draft in drafts for source in draft.attached]
    in_order = len(attached) == sum(draft.slots for draft in drafts)
    # A picture whose own turn has no placeholder belongs before that turn's text, whatever later turns say.
    in_order = in_order and all(draft.slots for draft in drafts if draft.attached)
    images: list[Any] = []

    def place(source: Any) -> list[int]:
        opened = open_image(source)
        images.extend(opened)
        return list(range(len(images) - len(opened), len(images)))

    turns = []
    for number, draft in enumerate(drafts, 1):
        if draft.role == "system" and not any(draft.parts):
            continue
        parts: list[str | int] = []
        if draft.listed or (draft.attached and not draft.slots and not in_order):
            parts = _on_lines([*map(_Picture, draft.attached), *draft.parts], place)
        elif in_order or draft.slots == len(draft.attached):
            sources = attached if in_order else list(draft.attached)
            for part in draft.parts:
                parts += [part] if isinstance(part, str) else _run(place(sources.pop(0)))
        else:
            raise ValueError(
                f"turn {number} ({draft.role}) has {draft.slots} {PLACEHOLDER} placeholders but "
                f"{len(draft.attached)} images; give one image for each, or no placeholder at all."
            )
        turns.append(Turn(draft.role, tuple(parts)))
    return Conversation(turns, images)


def pieces(
    turns: Sequence[Turn], add_generation_prompt: bool = False, continue_final_message: bool = False
) -> Iterator[Piece]:
    """The prompt as special tokens, pictures and the maximal runs of plain text between them.

    With `add_generation_prompt` the assistant's turn is opened at the end; with `continue_final_message` the
    last turn is left open instead, so that the model goes on with it.

    Raises:
        ValueError: both are asked for.
    """
    if add_generation_prompt and continue_final_message:
        raise ValueError("add_generation_prompt and continue_final_message exclude one another.")
    for index, turn in enumerate(turns):
        learned = turn.role == "assistant"
        yield Piece(special=IM_START_TOKEN)
        header = text = turn.role + "\n"
        for part in turn.parts:
            if isinstance(part, str):
                text += part
                continue
            if text:
                yield Piece(text=text)
            yield Piece(image=part)
            text = ""
        if text:
            yield Piece(text=text, learn_from=len(header) if learned else None)
        if continue_final_message and index == len(turns) - 1:
            return
        yield Piece(special=IM_END_TOKEN, learn_from=0 if learned else None)
        yield Piece(text="\n", learn_from=0 if learned else None)
    if add_generation_prompt:
        yield Piece(special=IM_START_TOKEN)
        yield Piece(text="assistant\n")


def render(turns: Sequence[Turn], add_generation_prompt: bool = False, continue_final_message: bool = False) -> str:
    """The prompt as text, with `<image>` for each picture; to be read, for what is tokenised is `pieces`."""
    return "".join(
        PLACEHOLDER if piece.image is not None else piece.special or piece.text
        for piece in pieces(turns, add_generation_prompt, continue_final_message)
    )


class _Picture(NamedTuple):
    source: Any


class _Draft(NamedTuple):
    """A checked message. `parts`: texts, pictures of a list, and None for each placeholder of a string."""

    role: str
    parts: list[str | _Picture | None]
    attached: list[Any]
    listed: bool = False

    @property
    def slots(self) -> int:
        return self.parts.count(None)


def _draft(message: Any, number: int) -> _Draft:
    if not isinstance(message, Mapping) or "role" not in message or "content" not in message:
        raise ValueError(f"turn {number} must be a mapping with the keys 'role' and 'content', not {message!r:.80}.")
    role, content, attached = message["role"], message["content"], message.get("image")
    if role not in ROLES:
        raise ValueError(f"turn {number} has the role {role!r}; it must be one of {', '.join(ROLES)}.")
    if "images" in message:
        raise ValueError(f"turn {number} has the key 'images'; its pictures go under 'image', one or a list of them.")
    if not isinstance(attached, list | tuple):
        attached = [] if attached is None else [attached]
    if isinstance(content, str):
        draft = _Draft(role, _slots(content) if role == "user" else [content], list(attached))
    elif isinstance(content, list | tuple):
        if attached:
            raise ValueError(f"turn {number} has a list as content; its pictures go into that list, not under 'image'.")
        parts = [_part(part, number) for part in content]
        draft = _Draft(role, [part for part in parts if part != ""], [], listed=True)
    else:
        raise ValueError(f"turn {number} has a {type(content).__name__} as content; it must be a string or a list.")
    if role != "user" and (attached or any(isinstance(part, _Picture) for part in draft.parts)):
        raise ValueError(f"turn {number} ({role}) has a picture; only user turns can have one.")
    return draft


def _slots(content: str) -> list[str | _Picture | None]:
    """A string split at its placeholders, with None for each of them."""
    first, *others = content.split(PLACEHOLDER)
    return [first, *(part for other in others for part in (None, other))]


def _part(part: Any, number: int) -> str | _Picture:
    """One part of a content list; pictures in the spellings of transformers and of OpenAI's interface."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    if kind == "image":
        sources = [part[key] for key in ("image", "url", "path") if part.get(key) is not None]
        if isinstance(part.get("base64"), str):
            sources.append("data:;base64," + part["base64"].rpartition(",")[2])
        if len(sources) > 1:
            raise ValueError(f"turn {number} has an image part with {len(sources)} sources; give one.")
        return _Picture(sources[0] if sources else None)
    if kind == "image_url":
        url = part.get("image_url")
        return _Picture(url.get("url") if isinstance(url, Mapping) else url)
    raise ValueError(
        f"turn {number} has the part {part!r:.80}; a part is {{'type': 'text', 'text': string}} or "
        "{'type': 'image', 'image': picture}."
    )


def _on_lines(parts: Sequence[str | _Picture | None], place: Callable[[Any], list[int]]) -> list[str | int]:
    """Texts and pictures in order, pictures on lines of their own, those next to one another numbered."""
    written: list[str | int] = []
    last = len(parts)
    for is_picture, group in groupby(enumerate(parts, 1), key=lambda item: isinstance(item[1], _Picture)):
        items = list(group)
        if not is_picture:
            written += [text for _, text in items if isinstance(text, str)]
            continue
        if written and not str(written[-1]).endswith("\n"):
            written.append("\n")
        pictures = [part for _, part in items if isinstance(part, _Picture)]
        written += _run([index for picture in pictures for index in place(picture.source)])
        if items[-1][0] != last:
            written.append("\n")
    return written


def _run(indices: Sequence[int]) -> list[str | int]:
    """Pictures next to one another: a single one bare, several numbered on a line each."""
    if len(indices) == 1:
        return list(indices)
    lines = [part for index in indices for part in (f"Image-{index + 1}: ", index, "\n")]
    return lines[:-1]
