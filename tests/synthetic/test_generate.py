"""The stream of samples: the same everywhere, right answers, the promised mixture."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from neo.synthetic import FAMILIES, contact_sheet, corpus, generate
from neo.synthetic.palette import COLORS
from neo.synthetic.scene import SHAPES

PICTURES = [family for family in FAMILIES if family not in ("text", "described")]
CANONICAL = {
    "color": r"What color is the (circle|square|triangle|star)\?",
    "lookup": r"What color is the (circle|square|triangle|star)\?",
    "shape": rf"What shape is ({'|'.join(COLORS)})\?",
    "count": r"How many (circle|square|triangle|star)s are there\?",
    "position": r"Which shape is (on the left|on the right|at the top|at the bottom)\?",
    "exist": rf"Is there an? ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})\?",
    "number": r"What number is written\?",
    "handwritten": r"Which digit is handwritten\?",
    "word": r"What word is written\?",
    "chart": r"Which bar is the tallest\?|What is the value of \w+\?",
    "receipt": r"What is the total\?|Extract the receipt as JSON\.",
    "caption": r"Describe the image\.",
    "list": r"List the shapes from left to right\.",
    "where": r"Where are the (circle|square|triangle|star|shape)s\?",
}
_THING = rf"({'|'.join(COLORS)}) ({'|'.join(SHAPES)})"
ANSWERS = {
    "color": "|".join(COLORS),
    "lookup": "|".join(COLORS),
    "shape": "|".join(SHAPES),
    "count": r"\d",
    "position": "|".join(SHAPES),
    "exist": "yes|no",
    "number": r"0|[1-9]\d{0,5}",
    "handwritten": r"\d",
    "word": r"[a-z]+",
    "chart": r"[A-Za-z]+|[1-9]\d{0,2}",
    "receipt": r"\d{1,2}\.\d0|\{.*\}",
    "caption": r"(An?|Two|Three|Four|Five|Six|Seven|Eight|Nine) .*\.",
    "list": rf"(({_THING}), )*({_THING})",
    "where": r"\d\d( \d\d)*",
}

DIGEST = """
import hashlib
from neo.synthetic import FAMILIES, corpus, generate
digest = hashlib.sha256()
for family in FAMILIES:
    for index in range(12):
        sample = generate(3, index, families={family: 1.0})
        digest.update(repr(sample.turns).encode())
        digest.update(sample.image.tobytes() if sample.image else b"")
        digest.update(corpus(3, index).encode())
print(digest.hexdigest())
"""


def test_two_processes_draw_the_same_pictures():
    digests = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_same_arguments_same_sample_in_any_order(split):
    samples = [generate(7, index, split) for index in range(40)]
    for index in reversed(range(40)):
        again = generate(7, index, split)
        assert (again.family, again.turns) == (samples[index].family, samples[index].turns)
        if again.image is not None:
            assert again.image.tobytes() == samples[index].image.tobytes()


def test_seed_index_and_split_all_matter():
    def digest(*arguments):
        sample = generate(*arguments, families={"color": 1.0})
        return hashlib.sha256(sample.image.tobytes()).hexdigest()

    assert len({digest(0, 0), digest(1, 0), digest(0, 1), digest(0, 0, "test"), digest(1, 0, "test")}) == 5


@pytest.mark.parametrize("family", PICTURES)
def test_test_split_asks_the_canonical_question_once(family):
    for index in range(200):
        sample = generate(0, index, "test", {family: 1.0})
        (turn,) = sample.turns
        assert sample.family == turn.kind == family
        assert sample.image.mode == "RGB"
        assert re.fullmatch(CANONICAL[family], turn.question), turn
        assert re.fullmatch(ANSWERS[family], turn.answer, re.DOTALL), turn


@pytest.mark.parametrize("family", PICTURES)
def test_at_least_half_of_the_training_questions_are_canonical(family):
    turns = [t for i in range(400) for t in generate(1, i, families={family: 1.0}).turns if t.kind == family]
    share = sum(bool(re.fullmatch(CANONICAL[family], turn.question)) for turn in turns) / len(turns)
    assert 0.5 <= share < 0.95


def test_training_samples_are_conversations_with_the_whole_scene_last():
    samples = [generate(2, index) for index in range(800)]
    turns = Counter(len(sample.turns) for sample in samples)
    assert set(turns) == {1, 2, 3, 4, 5}
    assert 0.3 < turns[1] / len(samples) < 0.6
    for sample in samples:
        kinds = [turn.kind for turn in sample.turns]
        assert not {"caption", "list"} & set(kinds[:-1])
        assert len({turn.question for turn in sample.turns}) == len(kinds) or sample.image is None


def test_every_count_from_0_to_9_is_about_equally_common():
    counts = Counter(generate(0, i, "test", {"count": 1.0}).turns[0].answer for i in range(600))
    assert sorted(counts) == list("0123456789")
    assert min(counts.values()) > 35


@pytest.mark.parametrize("family", ["color", "shape", "position", "handwritten"])
def test_answers_are_balanced(family):
    answers = Counter(generate(0, i, "test", {family: 1.0}).turns[0].answer for i in range(600))
    assert max(answers.values()) < 2.2 * min(answers.values())


def test_weights_are_respected():
    families = Counter(generate(0, i, families={"color": 3.0, "text": 1.0, "word": 0.0}).family for i in range(600))
    assert set(families) == {"color", "text"}
    assert 0.68 < families["color"] / 600 < 0.82
    assert {generate(0, i).family for i in range(400)} == {*FAMILIES} - {"where"}


def test_sizes_are_mostly_128_and_multiples_of_32():
    sizes = [generate(0, i, families={"color": 1.0, "count": 1.0, "word": 1.0}).image.size for i in range(300)]
    assert sum(size == (128, 128) for size in sizes) > 200
    assert sum(w % 32 == 0 and h % 32 == 0 for w, h in sizes) > 0.85 * len(sizes)
    assert all(96 <= side <= 256 for size in sizes for side in size)
    assert any(w % 32 for w, _ in sizes)


def test_wrong_arguments_are_one_clear_sentence():
    with pytest.raises(ValueError, match='Unknown family "colour"; did you mean color\\?'):
        generate(0, 0, families={"colour": 1.0})
    with pytest.raises(ValueError, match='Unknown split "val"'):
        generate(0, 0, "val")
    with pytest.raises(ValueError, match="above 0"):
        generate(0, 0, families={"color": 0.0})
    with pytest.raises(ValueError, match="from 0 up"):
        generate(0, 0, families={"color": -1.0})
    with pytest.raises(ValueError, match="0 or more"):
        generate(-1, 0)


def test_messages_have_the_picture_in_the_first_user_turn():
    sample = next(s for i in range(50) if len((s := generate(0, i, families={"color": 1.0})).turns) > 1)
    messages = sample.messages()
    assert [m["role"] for m in messages] == ["user", "assistant"] * len(sample.turns)
    assert [part["type"] for part in messages[0]["content"]] == ["image", "text"]
    assert messages[0]["content"][0]["image"] is sample.image
    assert messages[2]["content"] == sample.turns[1].question
    assert isinstance(generate(0, 0, families={"text": 1.0}).messages()[0]["content"], str)


def test_corpus_has_the_answer_formats():
    text = "\n".join(corpus(0, index) for index in range(400))
    for piece in (
        "What color is the",
        '{"store":"',
        "on the left",
        "How many",
        "What is the value of",
        "an orange",
    ):
        assert piece in text
    assert corpus(0, 5) == corpus(0, 5)
    assert corpus(0, 5, "test") != corpus(0, 5)


def test_contact_sheet_is_a_picture(tmp_path):
    contact_sheet(tmp_path / "sheet.png", per_family=2)
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
