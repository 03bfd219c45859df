from pathlib import Path

import pytest
from answering import Parrot
from PIL import Image

import neo
from neo.evaluation.answerer import NeoAnswerer, load_answerer
from neo.evaluation.harness import BenchmarkModel
from neo.inference.engine import Engine


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
    with pytest.raises(ValueError, match="adapter chooses how a model is loaded, and this one is loaded already"):
        load_answerer(neo.load_model(tiny_checkpoint, device="cpu"), adapter="tuned")


def test_a_neo_answers_as_many_at_once_as_are_asked(tiny_checkpoint: Path) -> None:
    assert load_answerer(tiny_checkpoint, 20, device="cpu").at_once == 20
    assert BenchmarkModel(str(tiny_checkpoint), batch_size=20, device="cpu").chat.engine.max_batch == 20
    chat = neo.load_model(tiny_checkpoint, device="cpu")
    chat.engine = Engine(chat.model, chat.processor, max_batch=2)
    assert load_answerer(chat, 20).at_once == 2  # its own engine is kept


@pytest.mark.parametrize(
    ("at_once", "batch_size", "wanted"), [(None, 4, 4), (None, 9, 5), (3, 4, 3), (3, 2, 2), (1, 4, 1)]
)
def test_latency_says_how_many_were_answered_at_once(at_once: int | None, batch_size: int, wanted: int) -> None:
    parrot = Parrot(str)
    if at_once is not None:
        parrot.at_once = at_once  # type: ignore[attr-defined]
    records = [{"question": f"{place}?", "answer": "yes"} for place in range(5)]
    result = neo.evaluate(parrot, records, ["latency"], batch_size=batch_size)
    assert result.summary["latency"]["at_once"] == wanted
    how = "asked alone" if wanted == 1 else f"among {wanted} answered at the same time"
    assert f"Latency of a question {how}:" in str(result)


def test_a_model_is_warmed_up_by_one_token(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    answer = NeoAnswerer.answer

    def counting(self: NeoAnswerer, conversations: list, max_new_tokens: int) -> list:
        asked.append(max_new_tokens)
        return answer(self, conversations, max_new_tokens)

    monkeypatch.setattr(NeoAnswerer, "answer", counting)
    records = [{"question": "circle", "answer": "red"}]
    neo.evaluate(tiny_checkpoint, records, max_new_tokens=2, device="cpu")
    assert asked == [2]
    neo.evaluate(tiny_checkpoint, records, ["latency"], max_new_tokens=2, device="cpu")
    assert asked == [2, 1, 2]
