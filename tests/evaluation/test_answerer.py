from pathlib import Path

import pytest
from PIL import Image

import neo
from neo.evaluation.answerer import load_answerer


def asked(text: str, *pictures: object) -> list[dict]:
    return [{"role": "user", "content": text, "image": list(pictures)}]


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (64, 96), "red").save(tmp_path / "red.png")
    return str(tmp_path / "red.png")


def test_a_batch_is_answered_as_each_alone(tiny_checkpoint: Path, picture: str) -> None:
    answerer = load_answerer(tiny_checkpoint, device="cpu")
    assert answerer.name == str(tiny_checkpoint)
    questions = [asked("What color is <image>?", picture), asked("circle red blue")]
    answers = answerer.answer(questions, 8)
    assert [one.text for one in answers] == [answerer.answer([one], 8)[0].text for one in questions]
    for answer in answers:
        assert answer.seconds_to_first_token is not None
        assert 0 < answer.seconds_to_first_token <= answer.seconds
        assert answer.new_tokens is not None
        assert answer.complete == (answer.new_tokens < 8)
    assert answers[0].prompt_tokens is not None
    assert answers[0].prompt_tokens > 64 * 96 // 1024
    peak = answerer.peak_memory()
    assert peak is not None
    assert peak > 10_000_000


def test_a_question_that_cannot_be_answered_is_named(tiny_checkpoint: Path) -> None:
    answerer = load_answerer(tiny_checkpoint, device="cpu")
    with pytest.raises(ValueError, match=r"^question 2: .*missing\.png"):
        answerer.answer([asked("circle"), asked("circle", "missing.png")], 8)


def test_what_is_loaded_is_taken_as_it_is(tiny_checkpoint: Path) -> None:
    chat = neo.load_model(tiny_checkpoint, device="cpu")
    answerer = load_answerer(chat)
    assert answerer.answer([asked("circle")], 4)[0].text == chat.generate(text="circle", max_new_tokens=4)
    assert load_answerer(answerer) is answerer
