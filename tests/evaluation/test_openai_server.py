"""A model behind our own server, asked as any server that speaks OpenAI's protocol."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from serving_tools import Served, served, until

import neo
from neo.evaluation.answerer import load_answerer
from neo.evaluation.openai_server import OpenAIAnswerer, openai_messages
from neo.serving.settings import Settings

STARS = Path(__file__).parents[2] / "examples" / "images" / "stars.png"
QUESTION = [{"role": "user", "content": "How many stars are there?", "image": STARS}]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served(lambda: neo.load_model("neo-demo", device="cpu"), Settings(name="small")) as running:
        until(lambda: running.http.get("/health").status_code == 200)
        yield running


def test_it_answers_as_the_model_does(server: Served) -> None:
    answerer, model = load_answerer(f"openai:{server.url}"), load_answerer("neo-demo", device="cpu")
    assert answerer.name == f"openai:{server.url}/v1#small"
    text = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]
    for said, expected in zip(answerer.answer([QUESTION, text], 16), model.answer([QUESTION, text], 16), strict=True):
        assert said.text == expected.text
        assert said.prompt_tokens == expected.prompt_tokens
        assert said.complete == expected.complete
        assert said.new_tokens
        assert said.seconds_to_first_token is not None
        assert 0 < said.seconds_to_first_token <= said.seconds
    assert answerer.peak_memory() is None


def test_a_picture_is_sent_as_it_is() -> None:
    (message,) = openai_messages(QUESTION)
    picture, text = message["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert text == {"type": "text", "text": "How many stars are there?"}


def test_what_the_server_refuses_is_told_with_the_question(server: Served) -> None:
    with pytest.raises(ValueError, match=r"^question 2: [^\n]*missing\.png"):
        load_answerer(f"openai:{server.url}/v1#small").answer(
            [QUESTION, [{"role": "user", "content": "What?", "image": "missing.png"}]], 4
        )
    with pytest.raises(ValueError, match=r"^question 1: [^\n]*large"):
        load_answerer(f"openai:{server.url}/v1#large").answer([QUESTION], 4)


def stand_in(reason: str | None, together: int = 1) -> OpenAIAnswerer:
    """A server that says a word, and ends for a reason when so many questions are under way."""
    barrier = threading.Barrier(together)

    def create(**asked: Any) -> Iterator[SimpleNamespace]:
        barrier.wait(20)
        for word, end in (("red", None), ("", reason)):
            choice = SimpleNamespace(delta=SimpleNamespace(content=word), finish_reason=end)
            yield SimpleNamespace(usage=None, choices=[choice])

    chat = SimpleNamespace(completions=SimpleNamespace(create=create))
    return OpenAIAnswerer(SimpleNamespace(base_url="http://here/v1", chat=chat), "m")  # type: ignore[arg-type]


def test_all_questions_are_under_way_at_once() -> None:
    assert [one.text for one in stand_in("stop", 20).answer([QUESTION] * 20, 4)] == ["red"] * 20


@pytest.mark.parametrize(("reason", "complete"), [("stop", True), ("length", False)])
def test_an_answer_ends_or_is_cut_off_at_its_limit(reason: str, complete: bool) -> None:
    assert stand_in(reason).answer([QUESTION], 4)[0].complete == complete


@pytest.mark.parametrize("reason", [None, "content_filter"])
def test_an_answer_that_breaks_off_is_none(reason: str | None) -> None:
    with pytest.raises(
        ValueError, match=rf"^question 1: the answer broke off \({reason or 'the stream ended early'}\)$"
    ):
        stand_in(reason).answer([QUESTION], 4)


@pytest.mark.parametrize("address", ["", "localhost:8000", "http://", "ftp://host"])
def test_addresses_have_a_form(address: str) -> None:
    with pytest.raises(ValueError, match=r"must be openai:http://HOST:PORT or openai:http://HOST:PORT/v1#MODEL"):
        load_answerer(f"openai:{address}")


def test_a_server_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"^openai:http://127\.0\.0\.1:1: [^\n]+$"):
        load_answerer("openai:http://127.0.0.1:1")


def test_options_of_a_neo_are_not_for_servers() -> None:
    with pytest.raises(ValueError, match=r"dtype='bf16' is for a NEO; models behind openai: take no options"):
        load_answerer("openai:http://127.0.0.1:1", dtype="bf16")
