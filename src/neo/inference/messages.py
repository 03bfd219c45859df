"""What people ask, as messages: question, pictures, examples and video as a conversation that the processor takes."""

from collections.abc import Mapping, Sequence
from typing import Any

from neo.processing.chat import PLACEHOLDER
from neo.processing.video import Frame

Messages = Sequence[Mapping[str, Any]]
Example = tuple[Any, str, str]
"""Picture (or several, or None), question and answer."""


def copy_messages(messages: Messages) -> list[dict[str, Any]]:
    """The messages and their parts copied, the pictures shared."""
    copies = [dict(message) for message in messages]
    for message in copies:
        if isinstance(message["content"], list):
            message["content"] = [dict(part) for part in message["content"]]
    return copies


def as_messages(
    messages: Messages | None,
    image: Any = None,
    text: str | None = None,
    system: str | None = None,
    examples: Sequence[Example] = (),
    frames: Sequence[Frame] | None = None,
) -> list[dict[str, Any]]:
    """The conversation that the arguments of `ChatModel.generate` make.

    Raises:
        ValueError: they contradict one another, or there is nothing to answer.
    """
    if messages is None:
        return [*system_message(system), *_turns(examples), question_message(text, as_list(image), frames)]
    if image is not None or text is not None or frames is not None or examples:
        raise ValueError("give either messages or image, video, text and examples, not both")
    if not isinstance(messages, list | tuple) or not messages or not all(isinstance(m, Mapping) for m in messages):
        raise ValueError("messages must be a list of {'role': ..., 'content': ...}; a question alone goes into text=")
    if messages[-1].get("role") != "user":
        raise ValueError(
            f"the last message must be the user's to be answered, but it is the {messages[-1].get('role')}'s"
        )
    if system is not None and messages[0].get("role") == "system":
        raise ValueError("the messages begin with a system message already; leave out system")
    return [*system_message(system), *(dict(message) for message in messages)]


def system_message(system: str | None) -> list[dict[str, Any]]:
    if system is not None and not isinstance(system, str):
        raise ValueError(f"system must be a string, not {type(system).__name__}")
    return [{"role": "system", "content": system}] if system else []


def question_message(text: str | None, pictures: list[Any], frames: Sequence[Frame] | None) -> dict[str, Any]:
    """A question about pictures, a video or neither."""
    if frames is None:
        return user_message(text, pictures)
    if pictures:
        raise ValueError("give either image or video, not both")
    return video_message(text, frames)


def user_message(text: str | None, pictures: list[Any]) -> dict[str, Any]:
    if text is not None and not isinstance(text, str):
        raise ValueError(f"text must be a string, not {type(text).__name__}")
    if not (text and text.strip()) and not pictures:
        raise ValueError("there is nothing to answer: give a text, an image or both")
    if text and PLACEHOLDER in text:
        if (slots := text.count(PLACEHOLDER)) != len(pictures):
            raise ValueError(
                f"the text has {slots} {PLACEHOLDER} placeholders but {len(pictures)} images were given; "
                "give one image for each, or no placeholder at all"
            )
        return {"role": "user", "content": text, "image": pictures}
    parts: list[dict[str, Any]] = [{"type": "image", "image": picture} for picture in pictures]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text or ""}]}


def video_message(text: str | None, frames: Sequence[Frame]) -> dict[str, Any]:
    """A question about a video: its frames, each on a line behind its time, then the text."""
    if text is not None and (not isinstance(text, str) or PLACEHOLDER in text):
        raise ValueError(f"text must be a string without {PLACEHOLDER} where there is a video, whose frames come first")
    lines = [f"[{frame.seconds:.1f}s]: {PLACEHOLDER}" for frame in frames]
    return {"role": "user", "content": "\n".join([*lines, text or ""]), "image": [frame.picture for frame in frames]}


def _turns(examples: Sequence[Example]) -> list[dict[str, Any]]:
    turns = []
    for number, example in enumerate(examples, 1):
        if not isinstance(example, list | tuple) or len(example) != 3:
            raise ValueError(f"example {number} must be (picture or None, question, answer), not {example!r:.80}")
        image, question, answer = example
        if not isinstance(answer, str) or not answer.strip():
            raise ValueError(f"example {number} has no answer: it must be a string that is not empty")
        try:
            turns += [user_message(question, as_list(image)), {"role": "assistant", "content": answer}]
        except ValueError as error:
            raise ValueError(f"example {number}: {error}") from error
    return turns


def as_list(image: Any) -> list[Any]:
    """No picture, one or several as a list."""
    if image is None:
        return []
    return list(image) if isinstance(image, list | tuple) else [image]
