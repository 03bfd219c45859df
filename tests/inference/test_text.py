from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoint import TEXTS

from neo.inference.text import TextStream, to_text
from neo.processing.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(TEXTS, 400)


def pieces(ids: list[int], stops: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    stream = TextStream(TOKENIZER, stops)
    said = []
    for token in ids:
        said.append(stream.push(token))
        if stream.stopped:
            break
    return [*said, stream.end()], stream.stopped


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=30))
def test_pieces_joined_are_the_whole_text(ids: list[int]):
    assert "".join(pieces(ids)[0]) == to_text(TOKENIZER, ids)


def test_a_character_of_several_tokens_comes_whole():
    ids = TOKENIZER.encode("a🦜b")
    assert len(ids) > 3
    assert [piece for piece in pieces(ids)[0] if piece] == ["a", "🦜", "b"]


@settings(max_examples=300, deadline=None)
@given(st.text("abc ", max_size=20), st.lists(st.text("abc ", min_size=1, max_size=4), max_size=3))
def test_the_answer_ends_before_the_first_stop_string(text: str, stops: list[str]):
    said, stopped = pieces(TOKENIZER.encode(text), tuple(stops))
    assert stopped == any(stop in text for stop in stops)
    ends = [text.find(stop) for stop in stops if stop in text]
    # Read token by token, the first stop string to be complete counts; none of the others is inside.
    assert text.startswith("".join(said))
    assert len("".join(said)) in ends if ends else "".join(said) == text


def test_nothing_of_a_stop_string_is_said_before_it_is_certain():
    stream = TextStream(TOKENIZER, ["END now"])
    said = [stream.push(token) for token in TOKENIZER.encode("the END no")]
    assert "".join(said) == "the "
    assert stream.end() == "END no"
    assert not stream.stopped


@settings(max_examples=300, deadline=None)
@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=3))
def test_only_what_a_stop_string_can_begin_with_waits(text: str, stops: list[str]):
    stream, said = TextStream(TOKENIZER, stops), ""
    for token in TOKENIZER.encode(text):
        said += stream.push(token)
        if stream.stopped:
            return
        begun = [stop[:n] for stop in stops for n in range(len(stop)) if (said + stream._text).endswith(stop[:n])]
        assert stream._text == max(begun, key=len)


def test_a_long_stop_string_costs_no_more_than_its_length():
    looked_at = 0

    class Counted(str):
        def __getitem__(self, place: int | slice) -> str:
            nonlocal looked_at
            looked_at += 1
            return super().__getitem__(place)

    said, _ = pieces(TOKENIZER.encode("a" * 500), (Counted("a" * 999 + "b"),))
    assert "".join(said) == "a" * 500
    assert looked_at < 5000
