"""The chat format: golden prompts, where pictures go, what is refused, and the same rules in Jinja."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils.chat_template_utils import render_jinja_template

from neo.processing.chat import CHAT_TEMPLATE, parse, pieces, render

PROMPTS = json.loads((Path(__file__).parents[1] / "golden" / "chat_prompts.json").read_text())


def golden_messages(case):
    messages = [{"role": "system", "content": case["system"]}]
    for question, answer in case["turns"]:
        images = ["picture"] * question.count("<image>")
        messages.append({"role": "user", "content": question, "image": images})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
    return messages


def jinja(messages, **options):
    return render_jinja_template([messages], chat_template=CHAT_TEMPLATE, **options)[0][0]


@pytest.mark.parametrize("case", PROMPTS, ids=lambda case: case["prompt"][-50:-30])
def test_golden_prompts(case):
    messages = golden_messages(case)
    assert render(parse(messages).turns, add_generation_prompt=True) == case["prompt"]
    assert jinja(messages, add_generation_prompt=True) == case["prompt"]
    # without placeholders they come out at the same places
    for message in messages:
        count = len(message.get("image", ()))
        lines = "<image>\n" if count == 1 else "".join(f"Image-{i + 1}: <image>\n" for i in range(count))
        message["content"] = message["content"].removeprefix(lines)
    assert render(parse(messages).turns, add_generation_prompt=True) == case["prompt"]


def user(content, image=None):
    return {"role": "user", "content": content, "image": image}


def text_of(*messages):
    """The user texts, without the frame around each turn."""
    conversation = parse(messages)
    frame = [f"<|im_start|>{turn.role}\n" for turn in conversation.turns]
    prompt = render(conversation.turns)
    texts = prompt.removesuffix("<|im_end|>\n").split("<|im_end|>\n")
    return [text.removeprefix(start) for text, start in zip(texts, frame, strict=True)]


ANSWER = {"role": "assistant", "content": "Yes."}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([user("What?", "a")], ["<image>\nWhat?"]),
        ([user("What?", ["a"])], ["<image>\nWhat?"]),
        ([user("What?", [])], ["What?"]),
        ([user("", "a")], ["<image>\n"]),
        ([user("Is <image> red?", "a")], ["Is <image> red?"]),
        ([user("Both?", ["a", "b"])], ["Image-1: <image>\nImage-2: <image>\nBoth?"]),
        ([user("A?", "a"), ANSWER, user("B?", "b")], ["<image>\nA?", "Yes.", "<image>\nB?"]),
        (
            [user("A?", "a"), ANSWER, user("B?", ["b", "c"])],
            ["<image>\nA?", "Yes.", "Image-2: <image>\nImage-3: <image>\nB?"],
        ),
        # all pictures under the first turn, placeholders in several
        ([user("<image> A?", ["a", "b"]), ANSWER, user("<image> B?")], ["<image> A?", "Yes.", "<image> B?"]),
        # <image> from the assistant is something it said
        ([user("Say it."), {"role": "assistant", "content": "<image>"}], ["Say it.", "<image>"]),
    ],
)  # fmt: skip
def test_where_pictures_go_in_strings(messages, expected):
    assert text_of(*messages) == expected


def text(words):
    return {"type": "text", "text": words}


IMAGE = {"type": "image", "image": "a"}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([IMAGE, text("What?")], "<image>\nWhat?"),
        ([text("What?"), IMAGE], "What?\n<image>"),
        ([text("A:\n"), IMAGE, text("B:"), IMAGE, text("Which?")], "A:\n<image>\nB:\n<image>\nWhich?"),
        ([IMAGE, IMAGE, text("Both?")], "Image-1: <image>\nImage-2: <image>\nBoth?"),
        ([IMAGE, text(""), IMAGE], "Image-1: <image>\nImage-2: <image>"),
        ([text("What "), text("is it?")], "What is it?"),
        ([{"type": "image_url", "image_url": {"url": "a"}}, text("What?")], "<image>\nWhat?"),
        ([{"type": "image", "url": "a"}], "<image>"),
        ([], ""),
    ],
)
def test_where_pictures_go_in_lists(parts, expected):
    assert text_of({"role": "user", "content": parts}) == [expected]
    assert jinja([{"role": "user", "content": parts}]) == f"<|im_start|>user\n{expected}<|im_end|>\n"


PART = st.one_of(st.sampled_from(["", "a", "a\n", "\nb", "你 "]).map(text), st.just(IMAGE))
CONTENT = st.one_of(st.sampled_from(["", "Hi", "x\n"]), st.lists(PART, max_size=5))
TEXT_CONTENT = st.one_of(st.sampled_from(["", "Hi"]), st.lists(st.sampled_from(["", "a", "b\n"]).map(text), max_size=3))
MESSAGE = st.one_of(
    st.fixed_dictionaries({"role": st.just("user"), "content": CONTENT}),
    st.fixed_dictionaries({"role": st.sampled_from(["system", "assistant"]), "content": TEXT_CONTENT}),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(MESSAGE, min_size=1, max_size=5), st.booleans())
def test_jinja_template_says_the_same(messages, prompt):
    assert jinja(messages, add_generation_prompt=prompt) == render(parse(messages).turns, prompt)


def test_pictures_of_a_conversation_are_in_the_order_of_their_places():
    conversation = parse(
        [user("<image> and <image>", ["a", "b"]), ANSWER, {"role": "user", "content": [text("c"), IMAGE]}]
    )
    assert conversation.images == ["a", "b", "a"]
    assert conversation.turns[0].parts == ("", 0, " and ", 1, "")


def test_a_picture_that_opens_as_several_becomes_several():
    def open_image(source):
        return [source + "0", source + "1"]

    conversation = parse([user("What?", "a")], open_image)
    assert conversation.images == ["a0", "a1"]
    assert render(conversation.turns) == "<|im_start|>user\nImage-1: <image>\nImage-2: <image>\nWhat?<|im_end|>\n"
    conversation = parse([user("Is <image> red?", "a")], open_image)
    assert render(conversation.turns) == "<|im_start|>user\nIs Image-1: <image>\nImage-2: <image> red?<|im_end|>\n"


def test_text_between_special_tokens_is_one_piece():
    conversation = parse([user("Hi\n<image>\nthere", "a"), ANSWER])
    found = [piece.special or piece.text or piece.image for piece in pieces(conversation.turns, True)]
    assert found == [
        "<|im_start|>", "user\nHi\n", 0, "\nthere", "<|im_end|>", "\n",
        "<|im_start|>", "assistant\nYes.", "<|im_end|>", "\n",
        "<|im_start|>", "assistant\n",
    ]  # fmt: skip


def test_the_last_turn_can_be_left_open():
    turns = parse([user("Hi"), {"role": "assistant", "content": "Well,"}]).turns
    assert render(turns, continue_final_message=True).endswith("<|im_start|>assistant\nWell,")
    with pytest.raises(ValueError, match="exclude one another"):
        render(turns, True, True)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "non-empty list"),
        ("Hello", "non-empty list"),
        ([user("Hi"), "Hello"], "turn 2 must be a mapping"),
        ([{"role": "user"}], "turn 1 must be a mapping with the keys"),
        ([user("Hi"), {"role": "robot", "content": "Hi"}], "turn 2 has the role 'robot'.*system, user"),
        ([user(7)], "turn 1 has a int as content"),
        ([user(None)], "turn 1 has a NoneType as content"),
        ([{"role": "user", "content": "Hi", "images": ["a"]}], "turn 1 has the key 'images'"),
        ([user([IMAGE], "a")], "turn 1 has a list as content"),
        ([{"role": "user", "content": ["Hi"]}], "turn 1 has the part 'Hi'"),
        ([{"role": "user", "content": [{"type": "video", "video": "a"}]}], "turn 1 has the part"),
        ([{"role": "user", "content": [{"type": "text", "text": 7}]}], "turn 1 has the part"),
        ([{"role": "user", "content": [{"type": "image", "image": "a", "url": "b"}]}], "2 sources"),
        ([user("Hi"), {"role": "assistant", "content": [IMAGE]}], "turn 2 .assistant. has a picture"),
        ([{"role": "system", "content": "Hi", "image": "a"}], "turn 1 .system. has a picture"),
        ([user("<image> <image>", "a")], "turn 1 .user. has 2 <image> placeholders but 1 images"),
        ([user("<image>", ["a", "b"])], "turn 1 .user. has 1 <image> placeholders but 2 images"),
        ([user("<image>")], "turn 1 .user. has 1 <image> placeholders but 0 images"),
        ([user("Hi", "a"), ANSWER, user("<image>?")], "turn 3 .user. has 1 <image> .* but 0 images"),
        ([user("Hi", "a"), ANSWER, user("<image><image>")], "turn 3 .user. has 2 <image> .* but 0 images"),
    ],
)  # fmt: skip
def test_refusals_name_the_turn(messages, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse(messages)
    assert "\n" not in str(caught.value)
