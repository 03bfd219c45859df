import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoint import TEXTS
from transformers import DynamicCache

from neo.inference.decoding import Memory, text_pieces, to_text
from neo.processing.processor import Encoded
from neo.processing.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(TEXTS, 400)
PICTURE, START, END = 9, 7, 8


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=30))
def test_pieces_joined_are_the_whole_text(ids: list[int]):
    assert "".join(text_pieces(TOKENIZER, iter(ids))) == to_text(TOKENIZER, ids)


def test_a_character_of_several_tokens_comes_whole():
    ids = TOKENIZER.encode("a🦜b")
    assert len(ids) > 3
    assert list(text_pieces(TOKENIZER, ids)) == ["a", "🦜", "b"]


def remembered(ids: list[int], grids: list[tuple[int, int]]) -> Memory:
    cache = DynamicCache()
    cache.update(torch.arange(len(ids)).view(1, 1, -1, 1), torch.zeros(1, 1, len(ids), 1), 0)
    return Memory(cache, list(ids), torch.tensor(grids).reshape(-1, 2))


def kept(memory: Memory, ids: list[int], grids: list[tuple[int, int]]) -> int:
    unused = torch.zeros(0)
    memory.keep_beginning(Encoded(torch.tensor(ids), unused, unused, torch.tensor(grids).reshape(-1, 2)), PICTURE)
    assert memory.cache.get_seq_length() == len(memory.ids)
    assert memory.ids == ids[: len(memory.ids)]
    assert len(memory.grids) == memory.ids.count(START) - (memory.ids[-1:] == [START])
    return len(memory.ids)


def picture(tokens: int) -> list[int]:
    return [START, *[PICTURE] * tokens, END]


def test_a_longer_conversation_keeps_everything():
    assert kept(remembered([1, 2, 3], []), [1, 2, 3, 4], []) == 3
    ids = [1, *picture(4), 2]
    assert kept(remembered(ids, [(4, 4)]), [*ids, *picture(6), 3], [(4, 4), (4, 6)]) == len(ids)


def test_the_last_token_of_the_prompt_is_always_fed():
    assert kept(remembered([1, 2, 3], []), [1, 2, 3], []) == 2
    assert kept(remembered([1, 2, 3], []), [1, 2], []) == 1


def test_words_that_differ_are_forgotten():
    assert kept(remembered([1, *picture(4), 2, 3, 4], [(4, 4)]), [1, *picture(4), 2, 5, 4, 6], [(4, 4)]) == 8


def test_pictures_are_kept_whole_or_not_at_all():
    before = [1, *picture(4), 2]
    assert kept(remembered(before, [(4, 4)]), [1, *picture(6), 2], [(4, 6)]) == 2
    assert kept(remembered([1, *picture(6), 2], [(4, 6)]), [1, *picture(4), 2], [(4, 4)]) == 2
    assert kept(remembered(before, [(4, 4)]), [*before, 3], [(2, 8)]) == 2  # as many tokens, another shape


def test_a_picture_token_that_the_model_said_is_no_picture():
    assert kept(remembered([1, 2, PICTURE, 3], []), [1, 2, 4, 3], []) == 2
