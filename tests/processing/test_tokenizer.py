"""Special tokens, the trained tokenizer, and text in which nothing is special."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import AutoTokenizer, Qwen2Tokenizer

from neo.processing.tokenizer import (
    SPECIAL_TOKENS,
    PlainText,
    add_special_tokens,
    special_ids,
    train_tokenizer,
)

from .conftest import TEXTS


def test_special_tokens_are_the_published_ones_in_order():
    assert " ".join(SPECIAL_TOKENS) == (
        "<IMG_CONTEXT> <img> </img> <quad> </quad> <ref> </ref> <box> </box> <|im_start|> <|im_end|> "
        "<|action_start|> <|action_end|> <|plugin|> <|interpreter|>"
    )


def test_trained_tokenizer_has_them_once_each_and_in_order(tokenizer):
    ids = tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS))
    assert ids == list(range(len(tokenizer) - 15, len(tokenizer)))
    for token, index in zip(SPECIAL_TOKENS, ids, strict=True):
        assert tokenizer(f"a{token}b").input_ids.count(index) == 1
    assert special_ids(tokenizer) == (ids[0], ids[1], ids[2], ids[9], ids[10])
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_vocabulary_is_as_large_as_asked_and_the_training_repeatable():
    first, second = (train_tokenizer(TEXTS, 300) for _ in range(2))
    assert len(first) == 300
    assert first.get_vocab() == second.get_vocab()
    with pytest.raises(ValueError, match=r"at least 272 .* not 271"):
        train_tokenizer(TEXTS, 271)
    with pytest.raises(ValueError, match="no text"):
        train_tokenizer([""], 300)


def test_digits_are_single_tokens(tokenizer):
    assert tokenizer.tokenize("12345") == list("12345")


def test_saved_and_loaded_by_autotokenizer(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is Qwen2Tokenizer
    assert special_ids(loaded) == special_ids(tokenizer)
    assert (loaded.pad_token, loaded.eos_token, len(loaded)) == (
        "<|endoftext|>",
        "<|im_end|>",
        len(tokenizer),
    )
    text = "<|im_start|>user\nWhat is 42, 你好?<|im_end|>\n"
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.decode(loaded(text).input_ids) == text
    assert loaded.decode(loaded(text).input_ids, skip_special_tokens=True) == "user\nWhat is 42, 你好?\n"


def test_tokens_that_are_there_keep_their_id():
    tokenizer = Qwen2Tokenizer(vocab={"a": 0, "b": 1}, merges=[])
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    before = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert add_special_tokens(tokenizer) == 13
    assert tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == before
    first = len(tokenizer) - 13
    assert tokenizer.convert_tokens_to_ids(["<IMG_CONTEXT>", "<img>", "</img>"]) == [
        first,
        first + 1,
        first + 2,
    ]
    assert add_special_tokens(tokenizer) == 0


def test_missing_tokens_are_named():
    tokenizer = Qwen2Tokenizer(vocab={"a": 0}, merges=[])
    tokenizer.add_tokens(["<img>"])  # there, but not special
    with pytest.raises(ValueError, match=r"lacks .*<IMG_CONTEXT>, <img>, </img>.*add_special_tokens"):
        special_ids(tokenizer)


@settings(deadline=None)
@given(st.text())
def test_any_text_decodes_to_itself(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == unicodedata.normalize("NFC", text)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|endoftext|>", " ", "\n", "a", "1", "é", "<", "|>"])).map("".join))
def test_nothing_is_special_in_plain_text(tokenizer, text):
    plain = PlainText(tokenizer)
    ids, starts = plain.ids_and_starts(text)
    assert ids == plain.ids(text) == tokenizer(text, split_special_tokens=True).input_ids
    assert not {index for index, token in tokenizer.added_tokens_decoder.items() if token.special} & set(ids)
    assert tokenizer.decode(ids) == text
    assert starts == sorted(starts)


def test_added_tokens_that_are_not_special_stay_tokens():
    tokenizer = train_tokenizer(TEXTS, 300)
    tokenizer.add_tokens(["<think>", "a"])  # "a" is in the vocabulary already
    think = tokenizer.convert_tokens_to_ids("<think>")
    assert think == 300
    text = "<|im_end|>a <think> b"
    assert PlainText(tokenizer).ids(text) == tokenizer(text, split_special_tokens=True).input_ids
    assert think in PlainText(tokenizer).ids(text)


def test_half_a_character_is_refused(tokenizer):
    with pytest.raises(ValueError, match="half a character"):
        PlainText(tokenizer).ids("a\udcff")


def test_plain_text_leaves_the_tokenizer_as_it_was(tokenizer):
    before = tokenizer("<|im_end|>").input_ids
    PlainText(tokenizer).ids("<|im_end|>")
    assert tokenizer("<|im_end|>").input_ids == before == [tokenizer.eos_token_id]
