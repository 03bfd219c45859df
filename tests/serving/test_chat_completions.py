"""POST /v1/chat/completions by OpenAI's own client."""

import asyncio
import json
import math
from typing import Any, Literal

import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI
from pydantic import BaseModel
from serving_tools import ROOT, Served, about, until

from neo.inference import constraint
from neo.inference.chat import ChatModel

LONG = {"type": "string", "minLength": 3000}
HOW_MANY = "How many stars are there?"


def test_an_answer_is_the_library_s(client: OpenAI, demo: ChatModel, stars: str) -> None:
    done = client.chat.completions.create(model="neo-demo", messages=about(stars, HOW_MANY))
    right = demo.answer(image=ROOT / "examples" / "images" / "stars.png", text=HOW_MANY)
    [choice] = done.choices
    assert choice.message.content == right.text
    assert (choice.message.role, choice.finish_reason, choice.index) == ("assistant", "stop", 0)
    assert done.id.startswith("chatcmpl-")
    assert (done.object, done.model) == ("chat.completion", "neo-demo")
    assert done.usage is not None
    assert done.usage.prompt_tokens == right.prompt_tokens
    assert done.usage.completion_tokens == len(right.tokens)
    assert done.usage.total_tokens == right.prompt_tokens + len(right.tokens)
    assert choice.logprobs is None


def test_several_turns_and_pictures_and_a_system_prompt(
    client: OpenAI, demo: ChatModel, stars: str, circle: str
) -> None:
    first = about(circle, "What color is the circle?")
    messages = [{"role": "developer", "content": "Be brief."}, *first, {"role": "assistant", "content": "red"}]
    messages += about(stars, HOW_MANY)
    done = client.chat.completions.create(model="neo-demo", messages=messages)
    images = ROOT / "examples" / "images"
    second = [{"type": "image", "image": images / "stars.png"}, {"type": "text", "text": HOW_MANY}]
    ours = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image", "image": images / "circle.png"}, first[0]["content"][1]]},
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": second},
    ]
    right = demo.answer(ours)
    assert done.choices[0].message.content == right.text
    assert done.usage is not None
    assert done.usage.prompt_tokens == right.prompt_tokens


def test_a_stream_is_the_answer_in_pieces(client: OpenAI, stars: str) -> None:
    asked = {"model": "neo-demo", "messages": about(stars, "Describe the image.")}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert sum(map(bool, pieces)) > 2
    *before, last = [chunk for chunk in chunks if chunk.choices]
    assert last.choices[0].finish_reason == "stop"
    assert all(chunk.choices[0].finish_reason is None for chunk in before)
    assert chunks[-1].choices == []
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_bytes_of_a_stream(common: Served) -> None:
    asked = {"model": "neo-demo", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    response = common.http.post("/v1/chat/completions", json=asked)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])
    assert "usage" not in json.loads(events[0].removeprefix("data: "))


def test_limits_of_length(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "Describe yourself."}]
    for name in ("max_tokens", "max_completion_tokens"):
        done = client.chat.completions.create(model="neo-demo", messages=messages, **{name: 2})
        assert done.choices[0].finish_reason == "length"
        assert done.usage is not None
        assert done.usage.completion_tokens == 2


def test_stop_strings(client: OpenAI, stars: str) -> None:
    asked = {"model": "neo-demo", "messages": about(stars, "Describe the image.")}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    assert whole is not None
    stop = whole.split()[2]
    for stops in (stop, ["never said", stop]):
        done = client.chat.completions.create(**asked, stop=stops)
        assert done.choices[0].message.content == whole[: whole.index(stop)]
        assert done.choices[0].finish_reason == "stop"


def test_a_seed_is_the_same_answers_and_n_of_them_differ(client: OpenAI) -> None:
    asked = {"model": "neo-demo", "messages": [{"role": "user", "content": "Say something."}], "max_tokens": 12}
    sampled = asked | {"temperature": 2, "n": 4}
    first, again, other = (client.chat.completions.create(**sampled, seed=seed) for seed in (1, 1, -2))
    said = [[choice.message.content for choice in done.choices] for done in (first, again, other)]
    assert said[0] == said[1] != said[2]
    assert len(set(said[0])) > 1
    assert [choice.index for choice in first.choices] == [0, 1, 2, 3]
    assert first.usage is not None
    one = client.chat.completions.create(**asked)
    assert one.usage is not None
    assert first.usage.prompt_tokens == one.usage.prompt_tokens  # told once
    narrow = client.chat.completions.create(**sampled | {"top_p": 1e-6})
    assert {choice.message.content for choice in narrow.choices} == {one.choices[0].message.content}


def test_n_answers_in_one_stream(client: OpenAI) -> None:
    asked = {"model": "neo-demo", "messages": [{"role": "user", "content": "Say something."}], "max_tokens": 8}
    asked |= {"temperature": 1.5, "seed": 3, "n": 3}
    whole = client.chat.completions.create(**asked)
    said, ends = ["", "", ""], {}
    for chunk in client.chat.completions.create(**asked, stream=True):
        [choice] = chunk.choices
        said[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            ends[choice.index] = choice.finish_reason
    assert said == [choice.message.content for choice in whole.choices]
    assert ends == {choice.index: choice.finish_reason for choice in whole.choices}


def test_logprobs(client: OpenAI, demo: ChatModel, circle: str) -> None:
    asked = {"model": "neo-demo", "messages": about(circle, "What color is the circle?"), "logprobs": True}
    done = client.chat.completions.create(**asked, top_logprobs=3)
    right = demo.answer(image=ROOT / "examples" / "images" / "circle.png", text="What color is the circle?", logprobs=3)
    assert done.choices[0].logprobs is not None
    tokens = done.choices[0].logprobs.content
    assert tokens is not None
    assert [one.logprob for one in tokens] == pytest.approx([one.logprob for one in right.logprobs], abs=1e-4)
    assert b"".join(bytes(one.bytes or []) for one in tokens).decode() == done.choices[0].message.content
    assert all(len(one.top_logprobs) == 3 for one in tokens)
    assert tokens[0].top_logprobs[0].token == tokens[0].token
    assert math.exp(tokens[0].logprob) <= 1
    streamed = list(client.chat.completions.create(**asked, stream=True))
    pieces = [chunk.choices[0].logprobs.content for chunk in streamed if chunk.choices[0].logprobs]
    assert [one.token for piece in pieces for one in piece or []] == [one.token for one in tokens]
    assert client.chat.completions.create(**asked).choices[0].logprobs.content[0].top_logprobs == []  # type: ignore


def test_json_that_follows_a_schema(client: OpenAI, stars: str) -> None:
    count = {"type": "integer", "minimum": 0, "maximum": 20}
    schema = {"type": "object", "properties": {"stars": count}, "required": ["stars"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "count", "schema": schema, "strict": True}}
    done = client.chat.completions.create(
        model="neo-demo", messages=about(stars, HOW_MANY), response_format=form, temperature=1, seed=0
    )
    assert done.choices[0].finish_reason == "stop"
    answer = json.loads(done.choices[0].message.content or "")
    assert set(answer) == {"stars"}
    assert 0 <= answer["stars"] <= 20


def test_a_schema_that_turns_out_to_be_too_much_work(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(constraint.FOLLOWING, "step_lexer_fuel", 50)
    schema = {"type": "string", "pattern": "^(.|..){0,300}b(.|...){0,300}c$"}
    form: Any = {"type": "json_schema", "json_schema": {"name": "hard", "schema": schema}}
    with serve() as running, pytest.raises(BadRequestError, match="the form takes too much work to follow") as refused:
        running.openai().chat.completions.create(
            model="neo-demo", messages=[{"role": "user", "content": "Hello"}], response_format=form
        )
    assert refused.value.param == "response_format"


def test_any_json_object(client: OpenAI, stars: str) -> None:
    done = client.chat.completions.create(
        model="neo-demo", messages=about(stars, HOW_MANY), response_format={"type": "json_object"}, max_tokens=200
    )
    text = done.choices[0].message.content or ""
    assert text.startswith("{")
    if done.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


class Seen(BaseModel):
    color: Literal["red", "green", "blue"]


def test_a_pydantic_class_by_the_client_s_own_way(client: OpenAI, circle: str) -> None:
    done = client.chat.completions.parse(
        model="neo-demo", messages=about(circle, "What color is the circle?"), response_format=Seen
    )
    assert done.choices[0].message.parsed is not None
    assert done.choices[0].message.parsed.color in ("red", "green", "blue")


def test_many_at_once_by_the_async_client(common: Served, client: OpenAI, stars: str, circle: str) -> None:
    questions = [
        about(stars, HOW_MANY),
        about(circle, "What color is the circle?"),
        [{"role": "user", "content": "Hi"}],
    ]
    alone = [
        client.chat.completions.create(model="neo-demo", messages=one).choices[0].message.content for one in questions
    ]

    async def together() -> list[str | None]:
        async with AsyncOpenAI(base_url=f"{common.url}/v1", api_key="none", max_retries=0) as many:
            asked = [many.chat.completions.create(model="neo-demo", messages=one) for one in questions * 4]
            return [done.choices[0].message.content for done in await asyncio.gather(*asked)]

    assert asyncio.run(together()) == alone * 4


def test_a_stream_that_is_broken_off_ends_in_the_engine(common: Served) -> None:
    asked = {"model": "neo-demo", "messages": [{"role": "user", "content": "Count."}], "max_tokens": 400}
    endless = asked | {"temperature": 2, "seed": 1}
    stream = common.openai().chat.completions.create(**endless, stream=True)
    next(iter(stream))
    stream.close()
    until(common.at_rest)


@pytest.mark.parametrize("stream", [False, True])
def test_an_async_request_that_is_cancelled_ends_in_the_engine(common: Served, stream: bool) -> None:
    messages: list = [{"role": "user", "content": "Count."}]
    form: dict = {"type": "json_schema", "json_schema": {"name": "long", "schema": LONG}}

    async def cancelled() -> None:
        async with AsyncOpenAI(base_url=f"{common.url}/v1", api_key="none", max_retries=0) as client:
            asking = asyncio.ensure_future(ask(client))
            while not common.engine.running:
                await asyncio.sleep(0.01)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await asyncio.to_thread(until, common.at_rest)

    async def ask(client: AsyncOpenAI) -> None:
        asked: dict = {"model": "neo-demo", "messages": messages, "response_format": form, "max_tokens": 900}
        answer = await client.chat.completions.create(**asked, temperature=2, stream=stream)
        if stream:
            async for _ in answer:
                pass

    until(common.at_rest)
    asyncio.run(cancelled())


def test_repeated_prompts_come_from_the_cache(client: OpenAI, stars: str) -> None:
    asked = {"model": "neo-demo", "messages": about(stars, "What shape is in the picture?")}
    client.chat.completions.create(**asked)
    usage = client.chat.completions.create(**asked).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1


def test_several_answers_to_a_new_prompt_find_nothing_in_the_cache(serve) -> None:
    asked = {"model": "neo-demo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "n": 3}
    with serve() as served:
        first, again = (served.openai().chat.completions.create(**asked).usage for _ in range(2))
    assert first.prompt_tokens_details.cached_tokens == 0
    assert again.prompt_tokens_details.cached_tokens == again.prompt_tokens - 1
