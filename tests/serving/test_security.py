"""What docs/security.md promises, at the door of a running server; pictures have test_media.py and test_fetch.py."""

import io
import json
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx2
import openai
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from openai import OpenAI
from PIL import Image
from serving_tools import ROOT, Served, about, data_url, request_lines, served, until

from neo.processing.tokenizer import SPECIAL_TOKENS
from neo.serving import admission, answering, run
from neo.serving.admission import ApiKeys, RateLimit, read_keys
from neo.serving.errors import ApiError
from neo.serving.logs import JsonLines
from neo.serving.settings import Settings

KEY, OTHER_KEY = "a-key-of-some-length", "another-key-of-some-length"
CHAT = {"model": "neo-demo", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
JSON = {"content-type": "application/json"}
ROUTES = [
    ("GET", path) for path in ("/v1/models", "/v1/models/neo-demo", "/version", "/metrics", "/openapi.json", "/none")
]
ROUTES += [("POST", path) for path in ("/v1/chat/completions", "/v1/completions", "/analyze", "/none")]


# --- pictures at the server ---


def png(*size: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


REFUSED = [
    (b"no picture", 415),
    (b"%PDF-1.4", 415),
    (png(50, 50) + b"<script>", 415),
    (png(1, 50), 422),
    (png(50, 50)[:60], 422),
    (png(8000, 8000), 413),
]


@pytest.mark.parametrize(("file", "status"), REFUSED, ids=["text", "pdf", "polyglot", "thin", "cut off", "bomb"])
def test_pictures_are_refused_with_4xx(common: Served, file: bytes, status: int) -> None:
    chat = common.http.post("/v1/chat/completions", json=CHAT | {"messages": about(data_url(file), "What?")})
    form = common.http.post("/analyze", files={"image": file}, data={"question": "What?"})
    for response in (chat, form):
        assert response.status_code == status
        assert re.fullmatch(r"(picture 1|the pictures) [\w ,-;]+", response.json()["error"]["message"])


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/a.png", "https://example.com/a.png", "file:///etc/passwd", "/etc/passwd"]
)
def test_only_data_addresses_are_taken(common: Served, url: str) -> None:
    response = common.http.post("/v1/chat/completions", json=CHAT | {"messages": about(url, "What?")})
    assert response.status_code == 400
    assert url not in response.text


def test_too_many_pictures(serve) -> None:
    with serve(max_images=1) as served:
        content = about(data_url(png(40, 40)), "What?")[0]["content"]
        messages = [{"role": "user", "content": content[:1] * 2 + content[1:]}]
        assert served.http.post("/v1/chat/completions", json=CHAT | {"messages": messages}).status_code == 413


def test_pictures_are_decoded_beside_the_event_loop_and_few_at_a_time(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    go, counting, inside, most = threading.Event(), threading.Lock(), [0], [0]
    open_all = answering.open_all

    def slow(*arguments):
        with counting:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        go.wait()
        with counting:
            inside[0] -= 1
        return open_all(*arguments)

    monkeypatch.setattr(answering, "open_all", slow)
    body = CHAT | {"messages": about(data_url(png(40, 40)), "What?")}
    with serve(decoders=2) as served, ThreadPoolExecutor(6) as pool:
        try:
            asked = [pool.submit(served.http.post, "/v1/chat/completions", json=body) for _ in range(6)]
            until(lambda: served.server.queue.taken == 6 and inside[0] == 2)
            assert served.http.get("/health").status_code == 200
        finally:
            go.set()
        assert [one.result().status_code for one in asked] == [200] * 6
    assert most[0] == 2


# --- texts ---


@pytest.mark.parametrize("special", [*SPECIAL_TOKENS, "<image>", "<|endoftext|>"])
def test_special_tokens_in_a_text_are_text(common: Served, client: OpenAI, special: str) -> None:
    """The prompt holds the two of the chat format a turn, and no more of them."""
    model = common.server.answering.model
    assert model is not None
    tokens = []
    submit = model.engine.submit_several

    def keep(request, n):
        tokens.append(request.prompt.input_ids.tolist())
        return submit(request, n)

    model.engine.submit_several = keep  # type: ignore[method-assign]
    try:
        client.chat.completions.create(**CHAT | {"messages": [{"role": "user", "content": f"a{special}b"}]})
        client.completions.create(model="neo-demo", prompt=f"a{special}b", max_tokens=1)
        parts = [{"type": "text", "text": f"a{special}b"}]
        client.chat.completions.create(**CHAT | {"messages": [{"role": "user", "content": parts}]})
    finally:
        del model.engine.submit_several
    added = set(model.processor.tokenizer.added_tokens_decoder)
    assert [sum(token in added for token in prompt) for prompt in tokens] == [3, 0, 3]
    assert f"a{special}b" in model.processor.tokenizer.decode(tokens[0])


def test_templates_are_not_taken(common: Served) -> None:
    for name in ("chat_template", "chat_template_kwargs", "template"):
        response = common.http.post("/v1/chat/completions", json=CHAT | {name: "{{ 7 * 7 }}"})
        assert response.status_code == 400
        assert name in response.json()["error"]["message"]


def test_a_text_beyond_the_limit(serve) -> None:
    with serve(max_text=1000) as served:
        long = CHAT | {"messages": [{"role": "user", "content": "x" * 1001}]}
        for path, body in (("chat/completions", long), ("completions", {"model": "neo-demo", "prompt": "x" * 1001})):
            response = served.http.post(f"/v1/{path}", json=body)
            assert response.status_code == 400
            assert response.json()["error"]["code"] == "context_length_exceeded"


# --- bodies ---


def test_bodies_beyond_the_limit_are_413(serve) -> None:
    with serve(max_body_bytes=10_000) as served:
        large = json.dumps(CHAT | {"user": "x" * 3_000_000}).encode()
        told = served.http.post("/v1/chat/completions", content=large, headers=JSON)
        assert told.status_code == 413

        def pieces():
            for start in range(0, len(large), 4096):
                yield large[start : start + 4096]

        untold = served.http.post("/v1/chat/completions", content=pieces(), headers=JSON)
        form = served.http.post("/analyze", files={"image": large}, data={"question": "What?"})
        assert [untold.status_code, form.status_code] == [413, 413]
        for response in (told, untold, form):
            assert "10000" in response.json()["error"]["message"]
        assert served.http.post("/v1/chat/completions", json=CHAT).status_code == 200


# --- keys, rate, origins ---


def test_a_key_opens_all_routes_and_none_only_health(serve) -> None:
    with serve(api_keys=(KEY, OTHER_KEY)) as served:
        wrong = [
            {},
            {"Authorization": f"Bearer {KEY}x"},
            {"Authorization": KEY},
            {"Authorization": "Bearer ö".encode()},
        ]
        for method, path in ROUTES:
            for headers in wrong:
                response = served.http.request(method, path, headers=headers)
                assert response.status_code == 401
                assert response.json()["error"]["code"] == "invalid_api_key"
                assert KEY not in response.text
            opened = served.http.request(method, path, headers={"Authorization": f"Bearer {OTHER_KEY}"})
            assert opened.status_code != 401
        assert served.http.get("/health").status_code == 200
        with pytest.raises(openai.AuthenticationError):
            served.openai("wrong").chat.completions.create(**CHAT)
        assert served.openai(KEY).chat.completions.create(**CHAT).choices


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((len(a), len(b))) or a == b)
    keys = ApiKeys((KEY, OTHER_KEY, "x" * 100))
    first, last = keys.name(f"Bearer {KEY}"), keys.name(f"bearer {'x' * 100}")
    assert first != last
    with pytest.raises(ApiError):
        keys.name("Bearer a")
    assert compared == [(32, 32)] * 9  # digests, of one length


def test_key_files(tmp_path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of the shop\n{KEY}\n\n{OTHER_KEY}\n")
    assert read_keys(file) == (KEY, OTHER_KEY)
    for text, complaint in (
        ("# none\n", "no API key"),
        ("short\n", "key 1"),
        (f"{KEY}\na key with blanks in it\n", "key 2"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=complaint) as error:
            read_keys(file)
        assert "blanks in it" not in str(error.value)
    with pytest.raises(ValueError, match="cannot be read"):
        read_keys(tmp_path / "none")


def test_a_key_has_its_rate(serve) -> None:
    with serve(api_keys=(KEY, OTHER_KEY), rate_limit=3) as served:
        answers = served.openai(KEY).chat.completions
        assert len(answers.create(**CHAT, n=2).choices) == 2
        assert answers.create(**CHAT).choices
        with pytest.raises(openai.RateLimitError) as refused:
            answers.create(**CHAT)
        assert refused.value.code == "rate_limit_exceeded"
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 20
        assert served.openai(OTHER_KEY).chat.completions.create(**CHAT).choices
        until_free = served.http.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"})
        assert until_free.status_code == 200  # asking for facts costs nothing


def test_several_answers_come_when_the_server_said_and_refusals_spend_nothing(serve, monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr(admission, "time", SimpleNamespace(monotonic=lambda: now))
    with serve(rate_limit=3) as served:
        ask = lambda n: served.http.post("/v1/chat/completions", json=CHAT | {"n": n})  # noqa: E731
        too_many = ask(4)
        assert (too_many.status_code, too_many.json()["error"]["param"]) == (400, "n")
        # That request has cost one, as any does that is wrong. Before a body is read one answer is asked for.
        for statuses in ([429, 200], [429, 429, 200]):
            for status in statuses:
                response = ask(3)
                assert response.status_code == status
                now += int(response.headers.get("retry-after", 0))
        assert now == 80


@pytest.mark.parametrize(("proxies", "last"), [((), 429), (("127.0.0.1",), 400)], ids=["strangers", "a proxy"])
def test_only_a_trusted_proxy_says_who_asks(fresh, proxies: tuple[str, ...], last: int) -> None:
    with served(fresh(), Settings(rate_limit=1), trusted_proxies=proxies) as running:
        until(lambda: running.http.get("/health").status_code == 200)
        asked = [
            running.http.post("/v1/completions", json={}, headers={"X-Forwarded-For": address}).status_code
            for address in ("198.51.100.1", "198.51.100.2")
        ]
    assert asked == [400, last]


def test_a_proxy_is_an_address() -> None:
    with pytest.raises(ValueError, match=r"--trusted-proxies.*proxy\.example"):
        run.run(pytest.fail, Settings(), "127.0.0.1", 0, 1, trusted_proxies=["10.0.0.0/8", "proxy.example"])


def test_a_bucket_fills_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    rate = RateLimit(60)
    rate.spend("me", 60)
    for _ in range(3):
        with pytest.raises(ApiError) as refused:
            rate.spend("me", 2)
        assert refused.value.headers == {"Retry-After": "2"}
    now = 2.0
    rate.spend("me", 2)
    rate.spend("you", 60)
    now = 1000.0
    rate.spend("me", 60)
    with pytest.raises(ApiError):
        rate.spend("me")


def test_pages_of_other_origins_read_nothing_unless_allowed(common: Served, serve) -> None:
    asks = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in common.http.options("/v1/chat/completions", headers=asks).headers
    assert "access-control-allow-origin" not in common.http.get("/health", headers=asks).headers
    with serve(origins=("https://page.example",), api_keys=(KEY,)) as served:
        allowed = served.http.options("/v1/chat/completions", headers=asks)
        assert allowed.headers["access-control-allow-origin"] == "https://page.example"
        other = served.http.options("/v1/chat/completions", headers=asks | {"Origin": "https://else.example"})
        assert "access-control-allow-origin" not in other.headers


# --- log ---


def test_the_log_is_json_with_ids_and_without_what_was_asked(common: Served, caplog: pytest.LogCaptureFixture) -> None:
    picture = (ROOT / "examples" / "images" / "stars.png").read_bytes()
    secret = "the secret of the giraffe"
    with caplog.at_level(logging.DEBUG):
        asked = CHAT | {"messages": about(data_url(picture), secret)}
        done = common.http.post("/v1/chat/completions", json=asked, headers={"x-request-id": "my-request.1"})
        common.http.post("/analyze", files={"image": picture}, data={"question": secret})
        common.http.post("/v1/chat/completions", json=CHAT | {"messages": about(data_url(picture[:80]), secret)})
        common.http.post("/v1/chat/completions", json=CHAT, headers={"x-request-id": 'bad "id"'})
        until(lambda: sum(record.name == "neo.serving.requests" for record in caplog.records) == 4)
    assert done.headers["x-request-id"] == "my-request.1"
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    requests = [line for line in lines if line["logger"] == "neo.serving.requests"]
    assert requests[0]["request_id"] == "my-request.1"
    assert requests[0]["status"] == 200
    assert requests[0]["outcome"] == "ok"
    assert requests[0]["images"] == 1
    assert requests[0]["prompt_tokens"] > requests[0]["picture_tokens"] > 0
    assert requests[0]["generated_tokens"] > 0
    assert [line["outcome"] for line in requests] == ["ok", "ok", "refused", "ok"]
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+", line["request_id"]) for line in requests)
    assert {name: requests[0][name] for name in ("address", "stream", "n", "max_tokens")} == {
        "address": "127.0.0.1",
        "stream": False,
        "n": 1,
        "max_tokens": CHAT["max_tokens"],
    }
    assert requests[0]["finish_reason"] in ("stop", "length")
    assert 0 < requests[0]["first_token_seconds"] <= requests[0]["seconds"]
    assert requests[2]["error"] == "image_damaged"
    everything = json.dumps(lines)
    assert "giraffe" not in everything
    assert data_url(picture)[60:100] not in everything
    assert done.json()["choices"][0]["message"]["content"] not in [line["message"] for line in lines]


REASONS = [
    ({"n": 0}, {"error": "greater_than_equal", "param": "n"}),
    ({"messages": [{"role": "giraffe", "content": "x"}]}, {"error": "literal_error", "param": "messages.0.role"}),
    ({"giraffe": 1}, {"error": "unknown_parameter"}),
    ({"model": "giraffe"}, {"error": "model_not_found", "param": "model"}),
    ({"max_tokens": 10**9}, {"error": "context_length_exceeded", "param": "messages"}),
    ({"messages": about("giraffe", "x")}, {"error": "image_address"}),
]


@pytest.mark.parametrize(("change", "reason"), REASONS, ids=str)
def test_the_log_says_why_without_what_was_asked(
    common: Served, caplog: pytest.LogCaptureFixture, change: dict, reason: dict
) -> None:
    with caplog.at_level(logging.INFO):
        common.http.post("/v1/chat/completions", json=CHAT | change)
        until(lambda: request_lines(caplog.records))
    [line] = request_lines(caplog.records)
    assert {name: line[name] for name in ("error", "param") if name in line} == reason
    assert "giraffe" not in json.dumps(line)


def test_the_log_names_a_key_or_an_address(serve, caplog: pytest.LogCaptureFixture) -> None:
    with serve(api_keys=(KEY,)) as served, caplog.at_level(logging.INFO):
        for key in (KEY, OTHER_KEY):
            served.http.post("/v1/completions", json={}, headers={"Authorization": f"Bearer {key}"})
        until(lambda: len(request_lines(caplog.records)) == 2)
    known, unknown = request_lines(caplog.records)
    assert (len(known["key"]), "address" in known) == (8, False)
    assert ("key" in unknown, unknown["address"], unknown["error"]) == (False, "127.0.0.1", "invalid_api_key")


# --- fuzz of the parser of requests ---

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
OPTIONS = "n stop seed stream stream_options logprobs top_logprobs response_format tools temperature top_p top_k user"
TEXT_OPTIONS = "echo frequency_penalty logprobs max_tokens model n prompt seed stop stream suffix top_k user"
FIELDS = sorted([*CHAT, *OPTIONS.split(), "max_completion_tokens"])
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "x"])}, optional={"text": anything, "image_url": anything}
)
roles = st.sampled_from(["user", "system", "assistant", "x"])
messages = st.lists(
    st.fixed_dictionaries({"role": roles, "content": anything | st.lists(parts, max_size=3)}), max_size=3
)


numbers = st.sampled_from(["temperature", "top_p", "min_p", "repetition_penalty"])
tiny = st.dictionaries(numbers, st.floats(0, 1) | st.sampled_from([1e-50, 1e-300, 5e-324, 1]), max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4), messages | st.just(CHAT["messages"]))
def test_any_json_is_answered_or_refused(common: Served, change: dict, messages: list) -> None:
    answered_or_refused(common, "/v1/chat/completions", {**CHAT, "messages": messages, **change})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(TEXT_OPTIONS.split()), anything, max_size=3),
    tiny,
    st.text(max_size=20) | st.lists(st.text(max_size=8), max_size=3),
)
@example({}, {"temperature": 1, "top_p": 1e-50}, "The")
@example({}, {"temperature": 1, "repetition_penalty": 1e-300}, "The")
def test_any_json_is_gone_on_with_or_refused(common: Served, change: dict, numbers: dict, prompt: object) -> None:
    body = {"model": "neo-demo", "prompt": prompt, "max_tokens": 4, **numbers, **change}
    answered_or_refused(common, "/v1/completions", body)


def answered_or_refused(served: Served, path: str, body: dict) -> None:
    response = served.http.post(path, content=json.dumps(body), headers=JSON)
    assert response.status_code in (200, 400, 404, 413, 415, 422)
    if response.status_code != 200:
        assert set(response.json()) == {"error"}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200),
    st.sampled_from(["application/json", "multipart/form-data; boundary=x", "multipart/form-data", "text/plain", ""]),
)
def test_any_bytes_are_refused(common: Served, body: bytes, kind: str) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/analyze"):
        response = common.http.post(path, content=body, headers={"content-type": kind})
        assert 400 <= response.status_code < 500


def test_http_of_any_length_of_header(common: Served) -> None:
    for headers in (
        {"Authorization": "Bearer " + "x" * 30_000},
        {"content-length": "many"},
        {"x-request-id": "é" * 50},
    ):
        try:
            status = common.http.get("/version", headers={k: v.encode() for k, v in headers.items()}).status_code
        except httpx2.HTTPError:
            continue
        assert status < 500
    assert common.http.get("/health").status_code == 200
