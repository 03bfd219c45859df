"""A model behind any server that speaks OpenAI's chat completions: ours, vLLM, SGLang, a paid one."""

import base64
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from neo.evaluation.answerer import Answer, one_line
from neo.inference.messages import Messages
from neo.processing.chat import parse
from neo.processing.picture import picture_file

if TYPE_CHECKING:
    from openai import OpenAI


class OpenAIAnswerer:
    """Such a model; see `neo.evaluation.answerer.Answerer`. Seconds include the way there and back."""

    at_once = None

    def __init__(self, client: "OpenAI", model: str) -> None:
        self.client, self.model = client, model
        self.name = f"openai:{str(client.base_url).rstrip('/')}#{model}"

    def answer(self, conversations: Sequence[Messages], max_new_tokens: int) -> list[Answer]:
        """See `Answerer`."""
        with ThreadPoolExecutor(len(conversations) or 1) as pool:
            ask = partial(self._answer, max_new_tokens=max_new_tokens)
            return list(pool.map(ask, range(1, len(conversations) + 1), conversations))

    def peak_memory(self) -> None:
        """None: it is the server's."""

    def _answer(self, number: int, messages: Messages, max_new_tokens: int) -> Answer:
        from openai import OpenAIError

        start = time.monotonic()
        first, text, reason, usage = None, "", None, None
        try:
            for chunk in self.client.chat.completions.create(
                model=self.model,
                messages=openai_messages(messages),
                max_tokens=max_new_tokens,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
            ):
                usage = chunk.usage or usage
                for choice in chunk.choices:
                    reason = choice.finish_reason or reason
                    if choice.delta.content:
                        first = first or time.monotonic()
                        text += choice.delta.content
        except (OpenAIError, ValueError) as error:
            raise ValueError(f"question {number}: {one_line(error)}") from error
        if reason in (None, "content_filter"):
            raise ValueError(f"question {number}: the answer broke off ({reason or 'the stream ended early'})")
        return Answer(
            text=text,
            seconds=time.monotonic() - start,
            seconds_to_first_token=None if first is None else first - start,
            new_tokens=usage.completion_tokens if usage else None,
            prompt_tokens=usage.prompt_tokens if usage else None,
            complete=reason != "length",
        )


def load_openai(address: str) -> OpenAIAnswerer:
    """The model of an address such as `http://host:8000/v1#name`.

    Args:
        address: of the server, with `/v1` or without a path, and behind a `#` the model's name, which may be left out
            where the server has a single one. A key is taken from the environment variable OPENAI_API_KEY.

    Raises:
        ValueError: no such server answers, or it has no such model.
    """
    try:
        from openai import OpenAI, OpenAIError
    except ModuleNotFoundError as error:
        raise ValueError("openai: models need the extra eval: pip install 'neo-vlm[eval]'") from error
    url, _, model = address.partition("#")
    host = url.partition("://")[2]
    if not url.startswith(("http://", "https://")) or not host:
        raise ValueError(f"openai:{address} must be openai:http://HOST:PORT or openai:http://HOST:PORT/v1#MODEL")
    base = url.rstrip("/") if "/" in host.rstrip("/") else f"{url.rstrip('/')}/v1"
    client = OpenAI(base_url=base, api_key=os.environ.get("OPENAI_API_KEY") or "none")
    if model:
        return OpenAIAnswerer(client, model)
    try:
        served = [one.id for one in client.models.list()]
    except OpenAIError as error:
        raise ValueError(f"openai:{address}: {one_line(error)}") from error
    if len(served) != 1:
        raise ValueError(f"openai:{address} serves {', '.join(served) or 'nothing'}: name one behind a #")
    return OpenAIAnswerer(client, served[0])


def openai_messages(messages: Messages) -> list[Any]:
    """A conversation in OpenAI's form, with pictures as data: addresses of their files as they are."""
    turns, pictures = parse(messages)
    written = []
    for turn in turns:
        content = [
            {"type": "image_url", "image_url": {"url": _data(pictures[part])}}
            if isinstance(part, int)
            else {"type": "text", "text": part}
            for part in turn.parts
            if isinstance(part, int) or part.strip("\n")
        ]
        plain = all(part["type"] == "text" for part in content)
        said = "".join(str(part["text"]) for part in content) if plain else content
        written.append({"role": turn.role, "content": said})
    return written


def _data(picture: Any) -> str:
    data, ending = picture_file(picture)
    kind = {"jpg": "jpeg", "tif": "tiff"}.get(ending, ending)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
