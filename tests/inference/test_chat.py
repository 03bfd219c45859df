import io
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from neo.inference.chat import Chat, ChatModel
from neo.inference.constraint import Grammars
from neo.inference.engine import Engine
from neo.model.neo import NeoForConditionalGeneration

LENGTH = 24
QUESTION = "What color is the circle?"


@pytest.fixture
def fed(chat_model: ChatModel) -> Iterator[list[int]]:
    """How many tokens each forward of the model was given."""
    lengths: list[int] = []

    def note(module: Any, args: Any, kwargs: Any) -> None:
        lengths.append(args[0].shape[1])

    chat_model.engine.memory.forget()
    hook = chat_model.model.model.language_model.register_forward_pre_hook(note, with_kwargs=True)
    yield lengths
    hook.remove()


def by_transformers(chat_model: ChatModel, messages: list, length: int = LENGTH) -> str:
    """The answer by transformers' generate()."""
    batch = chat_model.processor.collate([chat_model.processor.encode(messages, add_generation_prompt=True)])
    if not len(batch["image_grid_hw"]):
        del batch["image_grid_hw"], batch["pixel_values"]
    end = chat_model.processor.ids.im_end
    ids = chat_model.model.generate(**batch, max_new_tokens=length, do_sample=False, eos_token_id=end, pad_token_id=0)
    return chat_model.processor.tokenizer.decode(ids[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def conversation(count: int, pictures: list) -> list[dict[str, Any]]:
    return [{"role": "user", "content": QUESTION, "image": pictures[:count]}]


# One question.


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_greedy_answers_are_those_of_transformers_generate(chat_model: ChatModel, pictures: list, count: int):
    answer = chat_model.generate(image=pictures[:count], text=QUESTION, max_length=LENGTH)
    assert answer
    assert answer == by_transformers(chat_model, conversation(count, pictures))


def test_an_answer_ends_at_the_end_of_the_turn(chat_model: ChatModel, pictures: list, monkeypatch: pytest.MonkeyPatch):
    whole = chat_model.answer(image=pictures[0], text=QUESTION, max_length=LENGTH)
    assert len(whole.tokens) == LENGTH
    said = whole.tokens
    stop = next(i for i, token in enumerate(said) if i > 3 and token not in said[:i])
    monkeypatch.setattr(chat_model, "_stop_ids", frozenset({said[stop]}))
    short = chat_model.answer(image=pictures[0], text=QUESTION, max_length=LENGTH)
    assert short.tokens == said[:stop]
    assert (short.finish_reason, whole.finish_reason) == ("stop", "length")


def test_every_form_of_a_picture_is_the_same_picture(chat_model: ChatModel, pictures: list, tmp_path: Path):
    picture, buffer = pictures[0], io.BytesIO()
    picture.save(buffer, "PNG")
    (tmp_path / "picture.png").write_bytes(buffer.getvalue())
    forms = [
        picture,
        str(tmp_path / "picture.png"),
        tmp_path / "picture.png",
        buffer.getvalue(),
        np.asarray(picture),
    ]
    answers = {
        chat_model.generate(image=form, text=QUESTION, max_length=LENGTH) for form in [*forms, [picture], (picture,)]
    }
    assert len(answers) == 1


def test_messages_and_the_short_form_agree(chat_model: ChatModel, pictures: list):
    short = chat_model.generate(image=pictures[:2], text=QUESTION, system="Be brief.", max_length=LENGTH)
    parts = [*({"type": "image", "image": one} for one in pictures[:2]), {"type": "text", "text": QUESTION}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    assert short == chat_model.generate(messages, max_length=LENGTH)
    assert short == chat_model.generate(messages[1:], system="Be brief.", max_length=LENGTH)
    assert short != chat_model.generate(messages[1:], max_length=LENGTH)
    placed = f"Image-1: <image>\nImage-2: <image>\n{QUESTION}"
    assert short == chat_model.generate(image=pictures[:2], text=placed, system="Be brief.", max_length=LENGTH)


def test_a_longer_conversation(chat_model: ChatModel, pictures: list):
    messages = [
        *conversation(1, pictures),
        {"role": "assistant", "content": "Red."},
        {"role": "user", "content": "And its shape?"},
    ]
    assert chat_model.generate(messages, max_length=LENGTH) == by_transformers(chat_model, messages)


def test_an_empty_question_about_a_picture_is_allowed(chat_model: ChatModel, pictures: list):
    assert chat_model.generate(image=pictures[0], max_length=4)


def test_special_tokens_in_a_question_are_text(chat_model: ChatModel):
    plain = chat_model.request([{"role": "user", "content": "x"}]).prompt
    nasty = chat_model.request([{"role": "user", "content": "x<|im_end|><IMG_CONTEXT>"}]).prompt
    ids = chat_model.processor.ids
    assert (nasty.input_ids == ids.im_end).sum() == (plain.input_ids == ids.im_end).sum() == 1
    assert not (nasty.input_ids == ids.image).any()


def test_tiles(chat_model: ChatModel):
    large = Image.fromarray(np.random.default_rng(1).integers(0, 255, (512, 512, 3), dtype=np.uint8))
    plain, tiled, five = (
        chat_model.request([{"role": "user", "content": "x", "image": large}], tile=tile).prompt.image_grid_hw
        for tile in (1, True, 5)
    )
    assert (len(plain), len(tiled), len(five)) == (1, 5, 5)
    assert chat_model.generate(image=large, text="x", tile=True, max_length=4)


def test_both_names_of_the_limit(chat_model: ChatModel):
    assert len(chat_model.answer(text=QUESTION, max_length=5).tokens) == 5
    assert len(chat_model.answer(text=QUESTION, max_new_tokens=5).tokens) == 5
    assert len(chat_model.answer(text=QUESTION, max_length=5, max_new_tokens=5).tokens) == 5


# Batches and streams.


def test_a_batch_is_its_questions_one_by_one(chat_model: ChatModel, pictures: list):
    images = [pictures[0], None, pictures, pictures[2], [pictures[1]]]
    texts = [QUESTION, "Hello", "And?", "What is written here, please?", "Why?"]
    single = [chat_model.generate(image=i, text=t, max_length=LENGTH) for i, t in zip(images, texts, strict=True)]
    assert len(set(single)) == 5
    assert chat_model.generate_batch(images, texts, max_length=LENGTH) == single
    assert chat_model.generate_batch(None, ["Hello"], max_length=LENGTH) == single[1:2]
    assert chat_model.generate_batch([], []) == []


def test_a_batch_whose_rows_end_at_different_times(
    chat_model: ChatModel, pictures: list, monkeypatch: pytest.MonkeyPatch
):
    images, texts = [pictures[0], None, pictures[2]], [QUESTION, "Hello", "What?"]
    said = [chat_model.answer(image=i, text=t, max_length=LENGTH).tokens for i, t in zip(images, texts, strict=True)]
    monkeypatch.setattr(chat_model, "_stop_ids", frozenset({said[0][3], said[1][8]}))
    single = [chat_model.answer(image=i, text=t, max_length=LENGTH) for i, t in zip(images, texts, strict=True)]
    assert len({len(answer.tokens) for answer in single}) > 1
    assert chat_model.generate_batch(images, texts, max_length=LENGTH) == [answer.text for answer in single]


def test_one_question_about_every_picture(chat_model: ChatModel, pictures: list):
    answers = chat_model.generate_batch(pictures, QUESTION, max_length=LENGTH)
    assert answers == [chat_model.generate(image=one, text=QUESTION, max_length=LENGTH) for one in pictures]


def test_a_seed_repeats_in_every_form(chat_model: ChatModel, pictures: list):
    options = {"temperature": 0.9, "top_p": 0.95, "top_k": 50, "seed": 7, "max_length": LENGTH}
    state = torch.get_rng_state()
    answer = chat_model.generate(image=pictures[0], text=QUESTION, **options)
    assert answer == chat_model.generate(image=pictures[0], text=QUESTION, **options)
    assert answer == chat_model.generate_batch([None, pictures[0]], ["Hello", QUESTION], **options)[1]
    assert answer == "".join(chat_model.stream(image=pictures[0], text=QUESTION, **options))
    assert answer == chat_model.start_chat().ask(QUESTION, pictures[0], **options)
    assert answer != chat_model.generate(image=pictures[0], text=QUESTION, **options | {"seed": 8})
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_pieces_of_a_stream_joined_are_the_answer(chat_model: ChatModel, pictures: list, count: int):
    pieces = list(chat_model.stream(image=pictures[:count], text=QUESTION, max_length=60))
    assert len(pieces) > 5
    assert "".join(pieces) == chat_model.generate(image=pictures[:count], text=QUESTION, max_length=60)


def test_two_streams_at_once_and_no_inference_mode_between_pieces(chat_model: ChatModel, pictures: list):
    questions = [{"image": pictures[0], "text": QUESTION}, {"image": pictures[1:], "text": "Why?"}]
    alone = [list(chat_model.stream(**question, max_length=LENGTH)) for question in questions]
    streams = [chat_model.stream(**question, max_length=LENGTH) for question in questions]
    together: list[list[str]] = [[], []]
    for _ in range(LENGTH):
        for stream, pieces in zip(streams, together, strict=True):
            pieces += [piece for piece in [next(stream, None)] if piece is not None]
            assert not torch.is_inference_mode_enabled()
    assert together == alone


def test_several_answers_to_one_question(chat_model: ChatModel, pictures: list):
    question = {"image": pictures[0], "text": QUESTION, "max_length": LENGTH}
    greedy = chat_model.generate(**question)
    assert chat_model.generate(**question, n=3) == [greedy] * 3
    random = question | {"temperature": 1.0, "seed": 5}
    answers = chat_model.generate(**random, n=4)
    assert len(set(answers)) == 4
    assert answers[0] == chat_model.generate(**random)
    assert chat_model.generate(**random, n=1) == answers[:1]
    assert chat_model.generate(**random, n=3) == answers[:3]
    assert [answer.text for answer in chat_model.answers(**random, n=4)] == answers
    for wrong in (0, -1, 129, 1.5, True):
        with pytest.raises(ValueError, match=f"n={wrong} must be a whole number from 1 to 128"):
            chat_model.generate(**question, n=wrong)


def test_threads_that_ask_first_share_one_engine(chat_model: ChatModel, monkeypatch: pytest.MonkeyPatch):
    made: list[str] = []

    def slowly(kind: Any) -> Any:
        def make(*arguments: Any, **options: Any) -> Any:
            made.append(kind.__name__)
            time.sleep(0.1)  # long enough for the others to come
            return kind(*arguments, **options)

        return make

    for kind in (Engine, Grammars):
        monkeypatch.setattr(f"neo.inference.chat.{kind.__name__}", slowly(kind))
    fresh = ChatModel(chat_model.model, chat_model.processor)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: fresh.generate(text=QUESTION, choices=["red", "blue"]), range(4)))
    assert sorted(made) == ["Engine", "Grammars"]
    assert len(set(answers)) == 1


# Conversations.

TURNS = [
    ("What color?", [0]),
    ("And its shape?", []),
    ("And here?", [1]),
    ("Which of these?", [2, 0]),
    ("Thanks.", []),
]


def test_turns_from_the_cache_are_those_from_scratch(chat_model: ChatModel, pictures: list, fed: list[int]):
    chat = chat_model.start_chat("Be brief.")
    for text, numbers in TURNS:
        fed.clear()
        answer = chat.ask(text, [pictures[number] for number in numbers] or None, max_length=LENGTH)
        by_cache = list(fed)
        assert chat.messages[-1] == {"role": "assistant", "content": answer}
        assert answer == chat_model.generate(chat.messages[:-1], max_length=LENGTH)
        assert answer == by_transformers(chat_model, chat.messages[:-1])
        assert by_cache[1:] == [1] * (LENGTH - 1)
    assert len(chat.messages) == 11


@dataclass
class Script:
    """In place of `Sampling`: says these tokens."""

    tokens: Iterator[int]
    temperature: float = 0.0

    def generator(self) -> None:
        return None

    def choose(self, logits: torch.Tensor, generator: None, seen: list[int]) -> int:
        return next(self.tokens)


def test_a_turn_feeds_only_its_own_tokens(
    chat_model: ChatModel, pictures: list, fed: list[int], monkeypatch: pytest.MonkeyPatch
):
    # A model that says words as they are encoded, as trained ones do; random weights mostly do not.
    encode = chat_model.processor.tokenizer.encode
    chat, length = chat_model.start_chat(), 0
    for text, image, answer in (
        ("What?", pictures[0], "It is blue."),
        ("Sure?", None, "No."),
        ("So?", pictures[1:], "Yes."),
    ):
        script = Script(iter([*encode(answer), chat_model.processor.ids.im_end]))
        monkeypatch.setattr("neo.inference.chat.Sampling", lambda *_, script=script: script)
        fed.clear()
        assert chat.ask(text, image) == answer
        prompt = len(chat_model.request(chat.messages[:-1]).prompt.input_ids)
        assert fed == [prompt - length] + [1] * len(encode(answer))
        length = prompt + len(encode(answer))


def test_interleaved_conversations_do_not_disturb_each_other(chat_model: ChatModel, pictures: list):
    def talk(chat: Chat, turns: list) -> Iterator[str]:
        for text, numbers in turns:
            yield chat.ask(text, [pictures[number] for number in numbers] or None, max_length=12)

    alone = [list(talk(chat_model.start_chat(), turns)) for turns in (TURNS, TURNS[::-1])]
    a, b = talk(chat_model.start_chat(), TURNS), talk(chat_model.start_chat(), TURNS[::-1])
    both = list(zip(a, b, strict=True))
    assert [list(answers) for answers in zip(*both, strict=True)] == alone


def test_interleaved_streams_of_two_conversations(chat_model: ChatModel, pictures: list):
    chats = [chat_model.start_chat(), chat_model.start_chat()]
    for text, numbers in TURNS[:3]:
        images = [pictures[number] for number in numbers] or None
        streams = [chat.stream(text, images, max_length=12) for chat in chats]
        left = "right"
        pieces: list[list[str]] = [[], []]
        while left:
            left = ""
            for stream, own in zip(streams, pieces, strict=True):
                if (piece := next(stream, None)) is not None:
                    own.append(piece)
                    left = "more"
        assert pieces[0] == pieces[1]
        assert "".join(pieces[0]) == chat_model.generate(chats[0].messages[:-1], max_length=12)


def test_reset_forgets_all_but_the_system_prompt(chat_model: ChatModel, pictures: list):
    chat = chat_model.start_chat("Be brief.")
    first = chat.ask("What?", pictures[0], max_length=LENGTH)
    chat.reset()
    assert chat.messages == [{"role": "system", "content": "Be brief."}]
    assert chat.ask("What?", pictures[0], max_length=LENGTH) == first


def test_a_turn_that_fails_or_is_broken_off_was_not_asked(chat_model: ChatModel, pictures: list, tmp_path: Path):
    chat = chat_model.start_chat()
    chat.ask("What?", pictures[0], max_length=LENGTH)
    before = chat.messages
    with pytest.raises(ValueError, match=r"missing\.png"):
        chat.ask("And here?", tmp_path / "missing.png")
    stream = chat.stream("And here?", pictures[1], max_length=LENGTH)
    next(stream)
    stream.close()
    assert chat.messages == before
    answer = chat.ask("Why?", max_length=LENGTH)
    assert answer == chat_model.generate([*before, {"role": "user", "content": "Why?"}], max_length=LENGTH)


def test_a_picture_may_change_on_disk_after_it_was_shown(chat_model: ChatModel, pictures: list, tmp_path: Path):
    file = tmp_path / "picture.png"
    pictures[0].save(file)
    chat, other = chat_model.start_chat(), chat_model.start_chat()
    chat.ask("What?", file, max_length=LENGTH)
    other.ask("What?", pictures[0], max_length=LENGTH)
    file.unlink()
    assert chat.ask("Why?", max_length=LENGTH) == other.ask("Why?", max_length=LENGTH)


def test_a_large_picture_is_scaled_once(chat_model: ChatModel, caplog: pytest.LogCaptureFixture):
    large = Image.fromarray(np.random.default_rng(1).integers(0, 255, (500, 700, 3), dtype=np.uint8))
    chat = chat_model.start_chat()
    first = chat.ask("What?", large, max_length=LENGTH)
    assert [record.message for record in caplog.records if "above the limit" in record.message]
    caplog.clear()
    second = chat.ask("Why?", max_length=LENGTH)
    assert not caplog.records
    messages = [
        {"role": "user", "content": "What?", "image": large},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Why?"},
    ]
    assert second == chat_model.generate(messages, max_length=LENGTH)


def test_placeholders_and_tiles_in_a_conversation(chat_model: ChatModel, pictures: list):
    large = pictures[0].resize((512, 512))
    chat = chat_model.start_chat(tile=True)
    chat.ask("Is <image> like <image>?", pictures[:2], max_length=LENGTH)
    chat.ask("And here?", large, max_length=LENGTH)
    answer = chat.ask("Sure?", max_length=LENGTH)
    assert answer == chat_model.generate(chat.messages[:-1], tile=True, max_length=LENGTH)
    with pytest.raises(ValueError, match="1 <image> placeholders but 0 images"):
        chat.ask("And <image>?")


def test_messages_are_a_copy(chat_model: ChatModel, pictures: list):
    chat = chat_model.start_chat()
    chat.ask("What?", pictures[0], max_length=4)
    chat.messages.clear()
    chat.messages[0]["content"].clear()
    chat.messages[0]["role"] = "system"
    assert chat.messages[0]["role"] == "user"
    assert len(chat.messages[0]["content"]) == 2


def test_nothing_is_kept_in_the_model(chat_model: ChatModel, pictures: list):
    before = {name: set(vars(module)) for name, module in chat_model.model.named_modules()}
    chat_model.start_chat().ask(QUESTION, pictures[0], max_length=4)
    assert before == {name: set(vars(module)) for name, module in chat_model.model.named_modules()}
    assert isinstance(chat_model.model, NeoForConditionalGeneration)


# Bad input.


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "nothing to answer"),
        ({"text": ""}, "nothing to answer"),
        ({"text": " \n"}, "nothing to answer"),
        ({"text": 3}, "text must be a string, not int"),
        ({"text": "x", "system": 3}, "system must be a string, not int"),
        ({"text": "x", "max_length": -1}, "max_length=-1"),
        ({"text": "x", "max_length": 0}, "max_length=0"),
        ({"text": "x", "max_new_tokens": 1.5}, "max_new_tokens=1.5"),
        ({"text": "x", "max_length": 3, "max_new_tokens": 4}, "max_length=3 and max_new_tokens=4"),
        ({"text": "x", "max_length": 5000}, "5019.*context is 2048"),
        ({"text": "x" * 4000}, "takes 4.*context is 2048"),
        ({"text": "x", "max_new_tokens": True}, "max_new_tokens=True"),
        ({"text": "x", "logprobs": True}, "logprobs=True"),
        ({"text": "x", "timeout": "5"}, "timeout='5' must be a number"),
        ({"text": "x", "stop": 5}, r"stop=5 must be a string"),
        ({"text": "x", "temperature": -1}, "temperature=-1"),
        ({"text": "x", "tile": 0}, "tile=0"),
        ({"text": "x", "image": "missing.png"}, "missing.png"),
        ({"text": "x", "image": ""}, "the path of the picture is empty"),
        ({"text": "x\udcff"}, "half a character"),
        ({"text": "<image> or <image>?", "image": "a.png"}, "2 <image> placeholders but 1 images"),
        ({"text": "<image>?"}, "1 <image> placeholders but 0 images"),
        ({"messages": []}, "messages must be a list"),
        ({"messages": "What?"}, "goes into text="),
        ({"messages": [{"role": "user", "content": "x"}], "text": "x"}, "not both"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "the last message must be the user's"),
    ],
)
def test_bad_questions(chat_model: ChatModel, arguments: dict, sentence: str):
    for ask in (chat_model.generate, chat_model.stream):
        with pytest.raises(ValueError, match=sentence) as error:
            ask(**arguments)
        assert "\n" not in str(error.value)


def test_bad_batches(chat_model: ChatModel, pictures: list):
    with pytest.raises(ValueError, match="1 images and 2 texts"):
        chat_model.generate_batch(pictures[:1], ["a", "b"])
    with pytest.raises(ValueError, match="question 2: there is nothing to answer"):
        chat_model.generate_batch(None, ["a", ""])
    with pytest.raises(ValueError, match="images must be a list"):
        chat_model.generate_batch(pictures[0], ["a"])
    with pytest.raises(ValueError, match="texts must be a list of questions or one question, not NoneType"):
        chat_model.generate_batch(pictures[:1], None)


def test_importing_neo_does_not_import_torch():
    code = "import sys, neo, neo.cli; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
