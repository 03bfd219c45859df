"""The special tokens of NEO, and a small tokenizer of Qwen's kind trained on one's own texts.

NEO uses its base language model's tokenizer with `SPECIAL_TOKENS` added; ids are read from the tokenizer,
never assumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer

IMAGE_TOKEN = "<IMG_CONTEXT>"
IMAGE_START_TOKEN = "<img>"
IMAGE_END_TOKEN = "</img>"
IM_START_TOKEN = "<|im_start|>"
IM_END_TOKEN = "<|im_end|>"
PAD_TOKEN = "<|endoftext|>"

SPECIAL_TOKENS = (
    IMAGE_TOKEN,
    IMAGE_START_TOKEN,
    IMAGE_END_TOKEN,
    "<quad>",
    "</quad>",
    "<ref>",
    "</ref>",
    "<box>",
    "</box>",
    IM_START_TOKEN,
    IM_END_TOKEN,
    "<|action_start|>",
    "<|action_end|>",
    "<|plugin|>",
    "<|interpreter|>",
)
"""Tokens that a NEO tokenizer has besides its base's, in the order in which they are added."""

BYTES = 256
"""Byte-level BPE starts from one token for each byte."""


class SpecialIds(NamedTuple):
    """Ids of the tokens that the network and the chat format give a meaning to."""

    image: int
    image_start: int
    image_end: int
    im_start: int
    im_end: int

    def config_fields(self) -> dict[str, Any]:
        """Those that `NeoConfig` holds, by its names."""
        return {
            "image_token_id": self.image,
            "image_start_token_id": self.image_start,
            "image_end_token_id": self.image_end,
        }


def special_ids(tokenizer: PreTrainedTokenizerBase) -> SpecialIds:
    """Look the ids up in the tokenizer.

    Raises:
        ValueError: a token is missing, or is not marked as special.
    """
    names = (IMAGE_TOKEN, IMAGE_START_TOKEN, IMAGE_END_TOKEN, IM_START_TOKEN, IM_END_TOKEN)
    added = {token.content: (index, token.special) for index, token in tokenizer.added_tokens_decoder.items()}
    missing = [name for name in names if not added.get(name, (0, False))[1]]
    if missing:
        raise ValueError(
            f"the tokenizer {tokenizer.name_or_path!r} lacks the special tokens {', '.join(missing)}; "
            "add them with neo.processing.tokenizer.add_special_tokens(tokenizer)."
        )
    return SpecialIds(*(added[name][0] for name in names))


def add_special_tokens(tokenizer: PreTrainedTokenizerBase) -> int:
    """Add those of `SPECIAL_TOKENS` that the tokenizer lacks, in place; those it has keep their id.

    Returns:
        How many were added; the model's embedding must have at least len(tokenizer) rows.
    """
    return tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS], special_tokens=True
    )


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer of Qwen's kind: its splitting rule (digits one by one) and NFC.

    It has the special tokens of NEO, padding `<|endoftext|>` and the end of a turn `<|im_end|>`, and is saved
    and loaded by AutoTokenizer as a Qwen2Tokenizer.
    Any text can be encoded and decoded back exactly (up to NFC), whatever it was trained on.

    Args:
        texts: training texts.
        vocab_size: most tokens in all, special ones included; fewer where the texts offer no more merges.

    Raises:
        ValueError: vocab_size leaves no room for the bytes and the special tokens, or there is no text.
    """
    extra = len(SPECIAL_TOKENS) + 1
    if vocab_size < BYTES + extra:
        raise ValueError(f"vocab_size must be at least {BYTES + extra} (bytes and special tokens), not {vocab_size}.")
    rules = Qwen2Tokenizer().backend_tokenizer
    trained = Tokenizer(models.BPE())
    trained.normalizer, trained.pre_tokenizer = rules.normalizer, rules.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - extra,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = list(texts)
    if not any(texts):
        raise ValueError("there is no text to train the tokenizer on.")
    trained.train_from_iterator(texts, trainer)
    model = json.loads(trained.to_str())["model"]
    merges: Any = [tuple(merge) for merge in model["merges"]]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"], merges=merges, pad_token=PAD_TOKEN, eos_token=PAD_TOKEN, unk_token=PAD_TOKEN
    )
    add_special_tokens(tokenizer)
    tokenizer.eos_token = IM_END_TOKEN  # only now, so that `SPECIAL_TOKENS` keep their order
    return tokenizer


class PlainText:
    """Encodes text in which nothing is a special token: `<|im_end|>` becomes the characters it is made of.

    It shares the tokenizer's vocabulary and rules but not its special tokens. (The tokenizer's own switch for
    this, split_special_tokens, is a state that threads would share.) Other added tokens stay tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self._source = tokenizer
        if tokenizer is None:
            return
        backend = tokenizer.backend_tokenizer
        self._size = len(tokenizer)
        self._rules = Tokenizer(backend.model)  # shared, not copied
        if backend.normalizer is not None:
            self._rules.normalizer = backend.normalizer
        self._rules.pre_tokenizer = backend.pre_tokenizer
        added = tokenizer.added_tokens_decoder.items()
        ordinary = {index: token for index, token in added if not token.special}
        self._rules.add_tokens(list(ordinary.values()))
        # Their ids here count on from the vocabulary; this gives back the true ones.
        self._true_ids = {self._rules.token_to_id(token.content): index for index, token in ordinary.items()}

    def __reduce__(self) -> tuple:
        return PlainText, (None,)  # copies and other processes make it anew from their tokenizer

    def fits(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether this was made from that tokenizer as it now is."""
        return self._source is not None and self._source is tokenizer and self._size == len(tokenizer)

    def ids(self, text: str) -> list[int]:
        """Token ids of `text`.

        Raises:
            ValueError: the text is not valid Unicode.
        """
        return self._restored(self._encoding(text).ids)

    def ids_and_starts(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids, and for each the index in `text` of its first character."""
        encoding = self._encoding(text)
        return self._restored(encoding.ids), [start for start, _ in encoding.offsets]

    def _encoding(self, text: str) -> Any:
        try:
            return self._rules.encode(text, add_special_tokens=False)
        except TypeError as error:  # what the tokenizer makes of a lone surrogate
            raise ValueError(f"the text {text[:40]!r} holds half a character; it must be valid Unicode.") from error

    def _restored(self, ids: list[int]) -> list[int]:
        return [self._true_ids.get(index, index) for index in ids] if self._true_ids else ids
