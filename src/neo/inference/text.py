"""Tokens to text as they come, and the strings that end an answer."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


def to_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """What the model said, without special tokens."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))


class TextStream:
    """Text of an answer as its tokens come; the pieces joined are `to_text` of all tokens, cut at a stop string.

    Text waits while it may be a part of something: a token may hold only a part of a character (decoded text ends in a
    replacement character then), and the end of the text may be the beginning of a stop string.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = ()) -> None:
        self.tokenizer, self.stops = tokenizer, tuple(stops)
        self._beginnings = [_Beginning(stop) for stop in self.stops]
        self.stopped = False
        """A stop string has been said; what came before it is the answer."""
        self._ids: list[int] = []
        self._text = ""  # decoded, not yet handed out

    def push(self, token: int) -> str:
        """The text that is certain after one more token."""
        self._ids.append(token)
        text = to_text(self.tokenizer, self._ids)
        if not text or text.endswith(_INCOMPLETE):
            return ""
        self._ids = []
        self._text += text
        for beginning in self._beginnings:
            beginning.read(text)
        return self._hand_out(at_the_end=False)

    def end(self) -> str:
        """The text that was waiting when the answer ended."""
        self._text += to_text(self.tokenizer, self._ids)
        self._ids = []
        return self._hand_out(at_the_end=True)

    def _hand_out(self, at_the_end: bool) -> str:
        found = [self._text.find(stop) for stop in self.stops if stop in self._text]
        if found:
            self.stopped, at_the_end = True, True
            self._text = self._text[: min(found)]
        waiting = 0 if at_the_end else max((one.length for one in self._beginnings), default=0)
        ready = len(self._text) - waiting
        piece, self._text = self._text[:ready], self._text[ready:]
        return piece


class _Beginning:
    """How much of the end of a text a stop string begins with.

    By Knuth, Morris and Pratt, so that a character costs about as much however long the string is.
    """

    def __init__(self, stop: str) -> None:
        self.stop, self.length = stop, 0
        self._shorter = [0]  # of each beginning: the longest shorter one that it ends with
        for character in stop[1:]:
            self._shorter.append(self._longer(self._shorter[-1], character))

    def read(self, text: str) -> None:
        """More of the text."""
        for character in text:
            if self.length == len(self.stop):  # the whole string stands there
                return
            self.length = self._longer(self.length, character)

    def _longer(self, length: int, character: str) -> int:
        while length and self.stop[length] != character:
            length = self._shorter[length - 1]
        return length + (self.stop[length] == character)
