"""The other routes, and what everything says when something is wrong."""

import json
import re

import openai
import pytest
from openai import OpenAI
from pydantic import ValidationError
from serving_tools import ROOT, Served, about, log_lines, request_lines, until

from neo.inference.chat import ChatModel
from neo.serving.door import ANSWERS
from neo.serving.errors import _complaint
from neo.serving.protocol import ChatRequest, CompletionRequest
from neo.version import __version__

CHAT = {"model": "neo-demo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
TEXT = {"model": "neo-demo", "prompt": "The circle is", "max_tokens": 4}
TALL = {"type": "text", "text": "Hi", "size": 3}


def test_models(client: OpenAI, demo: ChatModel) -> None:
    [model] = client.models.list().data
    assert (model.id, model.object) == ("neo-demo", "model")
    assert client.models.retrieve("neo-demo") == model
    assert model.max_model_len == demo.model.config.text_config.max_position_embeddings
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt")


def test_version_and_health(common: Served) -> None:
    assert common.http.get("/version").json() == {"version": __version__}
    assert common.http.get("/health").json() == {"status": "ok"}
    assert common.http.head("/health").status_code == 200


def test_an_answer_is_called_as_its_request(client: OpenAI) -> None:
    named = {"x-request-id": "my-request.1"}
    assert client.chat.completions.create(**CHAT, extra_headers=named).id == "chatcmpl-my-request.1"
    assert client.completions.create(**TEXT, extra_headers=named).id == "cmpl-my-request.1"
    for kind, stream in (
        ("chatcmpl", client.chat.completions.create(**CHAT, stream=True, extra_headers=named)),
        ("cmpl", client.completions.create(**TEXT, stream=True, extra_headers=named)),
    ):
        assert {chunk.id for chunk in stream} == {f"{kind}-my-request.1"}


def test_text_goes_on_behind_a_prompt(client: OpenAI, demo: ChatModel) -> None:
    done = client.completions.create(**TEXT, logprobs=2)
    [choice] = done.choices
    assert done.usage is not None
    assert choice.logprobs is not None
    assert done.usage.prompt_tokens == len(demo.processor.tokenizer.encode(TEXT["prompt"]))
    assert choice.finish_reason == ("length" if len(choice.logprobs.tokens or []) == TEXT["max_tokens"] else "stop")
    assert "".join(choice.logprobs.tokens or []) == choice.text
    assert [len(top) for top in choice.logprobs.top_logprobs or []] == [2] * len(choice.logprobs.tokens or [])
    assert 0 < len(choice.logprobs.tokens or []) <= done.usage.completion_tokens
    assert (choice.logprobs.text_offset or [])[:2] == [0, len((choice.logprobs.tokens or [])[0])]
    pieces = list(client.completions.create(**TEXT, stream=True, stream_options={"include_usage": True}))
    assert "".join(one.choices[0].text for one in pieces if one.choices) == choice.text
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.total_tokens == done.usage.total_tokens


def test_several_prompts_with_several_answers(client: OpenAI) -> None:
    alone = [client.completions.create(**TEXT | {"prompt": prompt}).choices[0].text for prompt in ("The", "A red")]
    both = client.completions.create(**TEXT | {"prompt": ["The", "A red"]}, n=2)
    assert [choice.text for choice in both.choices] == [alone[0], alone[0], alone[1], alone[1]]
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]


def test_analyze(common: Served, demo: ChatModel) -> None:
    picture = ROOT / "examples" / "images" / "stars.png"
    question = "How many stars are there?"
    response = common.http.post("/analyze", files={"image": picture.read_bytes()}, data={"question": question})
    assert response.json() == {"answer": demo.generate(image=picture, text=question)}


def error_of(response) -> dict:
    """Of a refusal, which has OpenAI's shape and nothing else."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return body["error"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "messages.0.content.0"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content.0.image_url.url",
        ),
        ({"messages": {}}, "messages"),
        ({"messages": ["Hi"]}, "messages.0"),
        ({"model": 3}, "model"),
        ({"stream": "maybe"}, "stream"),
        ({"n": 1.5}, "n"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, None),
        ({"messages": [{"role": "user", "content": "half \ud800"}]}, None),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, None),
        ({"max_completion_tokens": 5}, None),
        ({"stop": ["a", "b", "c", "d", "e"]}, None),
        ({"stop": ""}, None),
        ({"stop": "x" * 1001}, None),
        ({"messages": [{"role": "user", "content": ""}] * 4097}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 2100}] * 2}, "messages"),
        ({"messages": [{"role": "user", "content": "Hi", "mood": "good"}]}, "messages.0.mood"),
        ({"messages": [{"role": "user", "content": "Hi", "tool_calls": [{}]}]}, "messages.0.tool_calls"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "", "size": 3}]}]},
            "messages.0.content.0.text.size",
        ),
        ({f"no_{number}": 1 for number in range(100)}, None),
        ({"seed": 2**70}, "seed"),
        ({"top_logprobs": 3}, None),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, None),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"chat_template": "{{ messages }}"}, "chat_template"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}, None),
        ({"response_format": {"type": "json_object"}, "stop": "}"}, None),
    ],
    ids=lambda value: str(value)[:120],
)
def test_what_makes_no_sense_is_400(common: Served, change: dict, param: str | None) -> None:
    response = common.http.post("/v1/chat/completions", content=json.dumps(CHAT | change), headers=JSON)
    assert response.status_code == 400
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert not re.search("Input|Field required|Value error", error["message"])  # pydantic's words
    if param:
        assert error["param"] == param


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [0] * 5000},
        {"messages": [{"role": "user", "content": [0] * 4000}]},
        {"messages": [{"role": "user", "content": [0] * 10}] * 300},
        {"messages": [{}] * 4000},
        {"stop": [0] * 5000},
        {str(number): 0 for number in range(5000)},
        {"messages": [{"role": "user", "content": "Hi"} | {str(number): 0 for number in range(5000)}]},
        {"stream": True, "stream_options": {str(number): 0 for number in range(5000)}},
        {"prompt": [0] * 5000},
    ],
    ids=lambda value: str(value)[:60],
)
def test_many_mistakes_are_not_all_listed(change: dict) -> None:
    kind = CompletionRequest if "prompt" in change else ChatRequest
    with pytest.raises(ValidationError) as refused:
        kind.model_validate((TEXT if "prompt" in change else CHAT) | change)
    assert refused.value.error_count() < 5


def test_as_much_as_is_taken(common: Served) -> None:
    few = [{"type": "text", "text": ""}] * 95
    messages = [{"role": "user", "content": few}] * 10 + [{"role": "user", "content": "Hi"}]
    response = common.http.post("/v1/chat/completions", json=CHAT | {"messages": messages, "stop": ["x" * 1000] * 4})
    assert response.status_code == 200


def test_what_is_wrong_is_said_in_our_own_words() -> None:
    with pytest.raises(ValidationError) as refused:
        ChatRequest.model_validate(CHAT | {"n": 17, "temperature": "hot", "messages": [], "top_k": []})
    said = {error["loc"][0]: _complaint(error) for error in refused.value.errors()}
    assert said == {
        "n": " must be at most 16",
        "temperature": " must be a number",
        "messages": " must have at least 1",
        "top_k": " must be a whole number",
    }


JSON = {"content-type": "application/json"}


def test_what_openai_has_and_changes_nothing_is_accepted(client: OpenAI) -> None:
    done = client.chat.completions.create(
        **CHAT,
        user="me",
        store=False,
        metadata={"a": "b"},
        service_tier="auto",
        tools=[],
        tool_choice="none",
        frequency_penalty=0,
        presence_penalty=0.0,
        logit_bias={},
        modalities=["text"],
        response_format={"type": "text"},
        stop=None,
        extra_body=VLLM,
    )
    assert done.choices[0].message.content


VLLM = {"top_k": -1, "priority": 3, "ignore_eos": False, "min_tokens": 0, "skip_special_tokens": True}


def test_an_answer_of_openai_s_client_goes_into_the_next_question(client: OpenAI) -> None:
    said = client.chat.completions.create(**CHAT).choices[0].message
    null = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "tool_calls"))
    for before in (said, said.model_dump(), {"role": "assistant", "content": "Hi", "name": "x"} | null):
        messages = [*CHAT["messages"], before, *CHAT["messages"]]
        assert client.chat.completions.create(**CHAT | {"messages": messages}).choices


def test_what_vllm_has_and_changes_something_is_refused(common: Served) -> None:
    options = {"continuous_usage_stats": True}
    for change in ({"min_tokens": 5}, {"ignore_eos": True}, {"stream": True, "stream_options": options}):
        response = common.http.post("/v1/completions", json=TEXT | change)
        assert response.status_code == 400
        assert next(reversed(change)) in error_of(response)["param"]
    assert common.http.post("/v1/completions", json=TEXT | VLLM | {"top_k": 0}).status_code == 200


@pytest.mark.parametrize("prompt", ["", [], ["x"] * 17, 7, [[1, 2]], "half \ud800"], ids=str)
def test_prompts_that_make_no_sense(common: Served, prompt: object) -> None:
    body = json.dumps(TEXT | {"prompt": prompt})
    response = common.http.post("/v1/completions", content=body, headers=JSON)
    assert response.status_code == 400
    error_of(response)


def test_another_model_is_404(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(**CHAT | {"model": "gpt-6 \ud800"[:5]})
    assert refused.value.code == "model_not_found"


def test_errors_can_quote_what_is_no_text(common: Served) -> None:
    body = json.dumps(CHAT | {"model": "\ud800"})
    response = common.http.post("/v1/chat/completions", content=body, headers=JSON)
    assert response.status_code == 404
    error_of(response)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/v1/completions", 405),
        ("POST", "/v1/models", 405),
    ],
)
def test_no_such_route_or_method(common: Served, method: str, path: str, status: int) -> None:
    response = common.http.request(method, path)
    assert response.status_code == status
    error_of(response)
    assert "location" not in response.headers


def test_the_routes_that_answer_are_those_of_the_queue(common: Served) -> None:
    routes = common.http.get("/openapi.json").json()["paths"]
    assert sorted(path for path, route in routes.items() if "post" in route) == sorted(ANSWERS)


@pytest.mark.parametrize("body", ["", "{", '{"model": nope}', "[" * 100_000, b"\xff\xfe", "9" * 5000])
def test_what_is_no_json_is_400(common: Served, body: str | bytes) -> None:
    response = common.http.post("/v1/chat/completions", content=body, headers=JSON)
    assert response.status_code == 400
    error_of(response)


def test_another_content_type_is_415(common: Served) -> None:
    for path in ("/v1/chat/completions", "/v1/completions"):
        response = common.http.post(path, content=json.dumps(CHAT), headers={"content-type": "text/plain"})
        assert response.status_code == 415
        error_of(response)


def test_a_form_without_its_parts(common: Served) -> None:
    picture = {"image": (ROOT / "examples" / "images" / "stars.png").read_bytes()}
    two = [("image", picture["image"]), ("image", picture["image"])]
    for files, data, param in (
        ({}, {"question": "What?"}, None),
        (picture, {}, "question"),
        (picture, {"question": ""}, "question"),
        (picture, {"question": ["What?", "Where?"]}, "question"),
        (two, {"question": "What?"}, "image"),
        ({"question": b"What?"}, {"image": "hello"}, "image"),
        (picture, {"question": "What?", "temperature": 1}, "temperature"),
    ):
        response = common.http.post("/analyze", files=files, data=data)
        error = error_of(response)
        assert (response.status_code, error["param"]) == ((400, param) if param else (415, None))
        assert "Value" not in error["message"]


def test_a_conversation_beyond_the_context_is_400(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="context") as refused:
        client.chat.completions.create(model="neo-demo", messages=[{"role": "user", "content": "word " * 20_000}])
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**TEXT | {"max_tokens": 10**9})
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "prompt")


def test_pictures_in_other_turns_are_400(common: Served, stars: str) -> None:
    messages = [{**about(stars, "Look.")[0], "role": "system"}, *CHAT["messages"]]
    response = common.http.post("/v1/chat/completions", json=CHAT | {"messages": messages})
    assert response.status_code == 400
    assert "user" in error_of(response)["message"]


def test_a_stream_that_fails_says_so(serve, monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("neo.serving.answering.Answering.pieces", lambda *_: 1 // 0)
    with serve() as served, caplog.at_level("INFO"):
        streamed = served.http.post("/v1/chat/completions", json=CHAT | {"stream": True})
        assert '"server_error"' in streamed.text
        assert streamed.text.endswith("data: [DONE]\n\n")
        until(lambda: request_lines(caplog.records))
    assert [line["outcome"] for line in request_lines(caplog.records)] == ["error"]
    [failure] = log_lines(caplog.records, "neo.serving.app")
    assert "ZeroDivisionError" in failure["exception"]
    assert failure["request_id"] == streamed.headers["x-request-id"]


def test_an_error_inside_an_answer_is_500_and_says_nothing(serve, monkeypatch) -> None:
    with serve() as served:
        monkeypatch.setattr("neo.inference.sampling.Sampling.choose", lambda *args: 1 // 0)
        response = served.http.post("/v1/chat/completions", json=CHAT)
        assert response.status_code == 500
        assert "zero" not in response.text
        error_of(response)
        streamed = served.http.post("/v1/chat/completions", json=CHAT | {"stream": True})
        assert streamed.status_code == 200
        assert '"server_error"' in streamed.text
        assert streamed.text.endswith("data: [DONE]\n\n")
        monkeypatch.undo()
        assert served.http.post("/v1/chat/completions", json=CHAT).status_code == 200
        until(served.at_rest)
