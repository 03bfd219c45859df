"""POST /attention."""

import httpx2
import pytest
import torch
from serving_tools import ROOT, Served, about, data_url

from neo.inference.cache import OutOfMemory
from neo.serving import attention

IMAGES = ROOT / "examples" / "images"


def look(common: Served, messages: list[dict], answer: str, start: int, stop: int, **more: object) -> httpx2.Response:
    body = {"model": "neo-demo", "messages": messages, "answer": answer, "start": start, "stop": stop, **more}
    return common.http.post("/attention", json=body)


@pytest.fixture(scope="module")
def shapes() -> str:
    return data_url(IMAGES / "two_shapes.png")


@pytest.mark.parametrize(("side", "answer"), [("left", "square"), ("right", "triangle")])
def test_it_looks_where_it_was_asked_to(common: Served, shapes: str, side: str, answer: str) -> None:
    told = look(common, about(shapes, f"Which shape is on the {side}?"), answer, 0, len(answer)).json()
    [picture] = told["pictures"]
    columns, shares = picture["columns"], picture["shares"]
    assert len(shares) == picture["rows"] * columns
    assert 0.3 < sum(shares) < 1
    left = sum(share for place, share in enumerate(shares) if place % columns < columns / 2)
    assert (left > 0.7 * sum(shares)) is (side == "left")


def test_each_picture_has_its_own(common: Served, shapes: str, circle: str) -> None:
    said = {"role": "assistant", "content": "square"}
    messages = [*about(shapes, "Which shape is on the left?"), said, *about(circle, "What color is the circle?")]
    pictures = look(common, messages, "It is red", 6, 9).json()["pictures"]
    assert [(one["rows"], one["columns"]) for one in pictures] == [(7, 10), (8, 8)]
    assert sum(share for one in pictures for share in one["shares"]) < 1


def test_what_comes_behind_the_word_changes_nothing(common: Served, circle: str) -> None:
    asked = about(circle, "What color is the circle?")
    short, long = look(common, asked, "It is red", 6, 9), look(common, asked, "It is red and round", 6, 9)
    assert short.json() == long.json() != look(common, asked, "It is red", 3, 5).json()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": 5, "stop": 5}, "start and stop"),
        ({"stop": 50}, "start and stop"),
        ({"model": "other"}, "there is no model"),
        ({"messages": [{"role": "user", "content": "Hello"}]}, "no picture"),
        ({"messages": [{"role": "assistant", "content": "Hello"}]}, "must be the user's"),
        ({"answer": "word " * 5000, "start": 0, "stop": 4}, "context"),
        ({"layers": 3}, "unrecognized request argument"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(common: Served, circle: str, change: dict, said: str) -> None:
    asked = {"messages": about(circle, "What?"), "answer": "red circle", "start": 0, "stop": 3} | change
    answer = look(common, **asked)
    assert answer.status_code in (400, 404)
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, OutOfMemory, RuntimeError])
def test_no_memory_is_503(common: Served, circle: str, monkeypatch: pytest.MonkeyPatch, error: type) -> None:
    def full(*_: object) -> None:
        raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 GiB on device 0")

    monkeypatch.setattr(attention, "attention_to_pictures", full)
    response = look(common, about(circle, "What color is the circle?"), "red", 0, 3)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "no_memory")
    assert "retry-after" in response.headers
    assert "device" not in response.text
