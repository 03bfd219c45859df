"""Examples and videos become the conversation that one could have written by hand."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neo.cli import main
from neo.inference.chat import ChatModel
from neo.inference.messages import as_messages
from neo.processing.chat import parse, render
from neo.processing.video import Frame, read_frames

QUESTION = "What color is the circle?"


def written(messages: list[dict[str, Any]]) -> str:
    return render(parse(messages).turns)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three frames."""
    noise = np.random.default_rng(1)
    for number in range(3):
        Image.fromarray(noise.integers(0, 255, (64, 96, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


# Examples.


def test_examples_are_earlier_turns(chat_model: ChatModel, pictures: list):
    by_hand = [
        {"role": "user", "content": QUESTION, "image": pictures[1]},
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": "And these?", "image": [pictures[2], pictures[0]]},
        {"role": "assistant", "content": "blue"},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": QUESTION, "image": pictures[0]},
    ]
    examples = [(pictures[1], QUESTION, "red"), (pictures[2::-2], "And these?", "blue"), (None, "Hello", "Hello.")]
    asked = as_messages(None, pictures[0], QUESTION, examples=examples)
    assert written(asked) == written(by_hand)
    answer = chat_model.generate(image=pictures[0], text=QUESTION, examples=examples, max_new_tokens=8)
    assert answer == chat_model.generate(by_hand, max_new_tokens=8)
    assert "".join(chat_model.stream(image=pictures[0], text=QUESTION, examples=examples, max_new_tokens=8)) == answer
    assert chat_model.generate_batch([pictures[0]], QUESTION, examples=examples, max_new_tokens=8) == [answer]
    assert answer != chat_model.generate(image=pictures[0], text=QUESTION, max_new_tokens=8)


def test_the_system_prompt_comes_before_examples():
    asked = as_messages(None, text=QUESTION, system="Be brief.", examples=[(None, "Hello", "Hi")])
    assert [message["role"] for message in asked] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize(
    ("examples", "sentence"),
    [
        (["abc"], "example 1 must be (picture or None, question, answer), not 'abc'"),
        ([(None, "Hello", "Hi"), (None, "Hello")], "example 2 must be"),
        ([(None, "Hello", " ")], "example 1 has no answer"),
        ([(None, "Hello", 3)], "example 1 has no answer"),
        ([(None, "", "Hi")], "example 1: there is nothing to answer"),
        ([(None, "<image>", "Hi")], "example 1: the text has 1 <image> placeholders but 0 images"),
    ],
)
def test_wrong_examples_are_refused(examples: list, sentence: str):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        as_messages(None, text=QUESTION, examples=examples)


# Videos.


def test_frames_stand_behind_their_times(pictures: list):
    frames = [Frame(0.0, pictures[0]), Frame(0.5, pictures[1]), Frame(61.25, pictures[2])]
    (turn,) = parse(as_messages(None, text=QUESTION, frames=frames)).turns
    assert turn.parts == ("[0.0s]: ", 0, "\n[0.5s]: ", 1, "\n[61.2s]: ", 2, f"\n{QUESTION}")


def test_a_video_is_its_frames(chat_model: ChatModel, folder: Path):
    pictures = [Image.open(folder / f"{number}.png") for number in range(3)]
    by_hand = f"[0.0s]: <image>\n[0.5s]: <image>\n[1.0s]: <image>\n{QUESTION}"
    answer = chat_model.generate(video=folder, fps=2, text=QUESTION, max_new_tokens=8)
    assert answer == chat_model.generate(image=pictures, text=by_hand, max_new_tokens=8)
    assert answer == chat_model.answer(video=str(folder), fps=2, text=QUESTION, max_new_tokens=8).text
    first = f"[0.0s]: <image>\n{QUESTION}"
    fewer = chat_model.generate(video=folder, max_frames=1, text=QUESTION, max_new_tokens=8)
    assert fewer == chat_model.generate(image=pictures[0], text=first, max_new_tokens=8)


def test_a_video_behind_examples_keeps_its_frames(chat_model: ChatModel, pictures: list):
    frames = [Frame(0.0, pictures[0]), Frame(1.0, pictures[1])]
    turns = parse(as_messages(None, text=QUESTION, examples=[(pictures[2], "And?", "red")], frames=frames))
    assert turns.images == [pictures[2], pictures[0], pictures[1]]
    assert turns.turns[-1].parts == ("[0.0s]: ", 1, "\n[1.0s]: ", 2, f"\n{QUESTION}")


def test_wrong_questions_about_videos_are_refused(chat_model: ChatModel, folder: Path, pictures: list):
    with pytest.raises(ValueError, match="give either image or video, not both"):
        chat_model.generate(image=pictures[0], video=folder, text=QUESTION)
    with pytest.raises(ValueError, match="text must be a string without <image>"):
        chat_model.generate(video=folder, text="<image> again")
    with pytest.raises(ValueError, match="give either messages or image, video, text and examples"):
        chat_model.generate([{"role": "user", "content": "Hi"}], video=folder)
    with pytest.raises(ValueError, match="video must be a path, a folder, bytes or a file object"):
        chat_model.generate(video=3, text=QUESTION)


def test_a_conversation_about_a_video(chat_model: ChatModel, folder: Path, pictures: list):
    chat = chat_model.start_chat()
    first = chat.ask(QUESTION, video=folder, fps=2, max_new_tokens=8)
    assert first == chat_model.generate(video=folder, fps=2, text=QUESTION, max_new_tokens=8)
    assert "[0.5s]: <image>" in chat.messages[0]["content"]
    second = chat.ask("And this?", pictures[0], max_new_tokens=8)
    assert second == chat_model.generate(chat.messages[:-1], max_new_tokens=8)
    with pytest.raises(ValueError, match="give either image or video, not both"):
        chat.ask(QUESTION, pictures[0], video=folder)
    assert len(chat.messages) == 4


def test_frames_that_were_read_before(chat_model: ChatModel, folder: Path):
    frames = read_frames(folder, fps=2)
    answers = [chat_model.generate(video=one, fps=2, text=QUESTION, max_new_tokens=8) for one in (frames, folder)]
    assert answers[0] == answers[1]


def test_neo_chat_about_a_video(
    run: Any, tiny_checkpoint: Path, chat_model: ChatModel, folder: Path, monkeypatch: Any, capsys: Any
):
    options = ("--model", tiny_checkpoint, "--max-new-tokens", 8, "--fps", 2)
    chat = chat_model.start_chat()
    option = {"fps": 2, "max_new_tokens": 8}
    answers = [chat.ask(QUESTION, video=folder, **option), chat.ask("Why?", **option)]
    answers.append(chat.ask("And here?", video=folder, **option))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\nWhy?\n/video {folder}\nAnd here?\n"))
    assert run("chat", folder, *options) == "".join(answer + "\n" for answer in answers)
    lines = f"/video none.mp4\n/video {folder}\n/image {next(folder.iterdir())}\n/video {folder}\n{QUESTION}\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert main(["chat", *map(str, options)]) == 2
    captured = capsys.readouterr()
    assert captured.out == answers[0] + "\n"
    assert "none.mp4: cannot read the video file" in captured.err
    assert captured.err.count("a video stands alone before a question") == 2


def test_neo_ask_about_a_video(run: Any, refuse: Any, tiny_checkpoint: Path, chat_model: ChatModel, folder: Path):
    options = ("--model", tiny_checkpoint, "--max-new-tokens", 8)
    answer = chat_model.generate(video=folder, fps=2, max_frames=2, text=QUESTION, max_new_tokens=8)
    assert run("ask", folder, QUESTION, "--fps", 2, "--max-frames", 2, *options) == answer + "\n"
    assert "none.MP4: cannot read the video file" in refuse("ask", folder / "none.MP4", QUESTION, *options)
    assert "stands alone" in refuse("ask", folder / "0.png", folder, QUESTION, *options)
    assert "fps=0.0 must be a number above 0" in refuse("ask", folder, QUESTION, "--fps", 0, *options)
    assert run("ask", folder / "0.png", QUESTION, *options)
