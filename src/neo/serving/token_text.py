"""Single tokens as text and bytes, for log-probabilities."""

from transformers import PreTrainedTokenizerBase


def _bytes_of_characters() -> dict[str, int]:
    """Byte-level BPE writes each byte as a printable character: itself where it is one, else one from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


class TokenText:
    """Of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer, self._bytes = tokenizer, _bytes_of_characters()

    def text(self, token: int) -> str:
        """As alone; half a character is shown as one that stands for it."""
        return self.bytes(token).decode(errors="replace")

    def bytes(self, token: int) -> bytes:
        """Its share of the answer's UTF-8; of a special token, its name."""
        written = str(self._tokenizer.convert_ids_to_tokens(token))
        if token in self._tokenizer.added_tokens_decoder:
            return written.encode()
        return bytes(self._bytes[character] for character in written)
