"""`NeoProcessor`: conversations with pictures to what the network reads.

`encode` and `collate` are the doors that training and inference use; the rest is transformers' interface. In `encode`
and `apply_chat_template` special tokens come only from the chat format, never from what somebody wrote: text such
as `<|im_end|>` or `<img>` in a message is encoded as the characters it is made of. `__call__` takes a finished prompt,
as in transformers, and there special tokens in the text count.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BatchFeature, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.image_utils import load_image as fetch_image
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin

from . import chat
from .image import NeoImageKwargs, NeoImageProcessor, load_image, shared_max_pixels, smart_resize, tile_image
from .tokenizer import IMAGE_END_TOKEN, IMAGE_START_TOKEN, IMAGE_TOKEN, PlainText, special_ids

logger = logging.getLogger(__name__)

NO_LOSS = -100
"""Label of a token that the model does not learn to say."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation as tensors. L tokens, N pictures; without pictures the last two have no rows."""

    input_ids: torch.Tensor
    """int64 (L,)"""
    labels: torch.Tensor
    """int64 (L,): input_ids where the model learns (assistant text, `<|im_end|>`, the newline after), else -100."""
    pixel_values: torch.Tensor
    """float32 (patches of all pictures, 768)"""
    image_grid_hw: torch.Tensor
    """int64 (N, 2): rows and columns in patches"""


class NeoProcessor(ProcessorMixin):
    """A tokenizer and an image processor that speak NEO's chat format.

    Raises:
        ValueError: the tokenizer lacks one of NEO's special tokens.
    """

    def __init__(
        self,
        image_processor: NeoImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | dict[str, str] | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template or chat.CHAT_TEMPLATE)
        self.ids = special_ids(tokenizer)
        self.image_token = IMAGE_TOKEN
        self.image_token_id = self.ids.image
        self._plain = PlainText(tokenizer)

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        *,
        continue_final_message: bool = False,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        share_pixels: bool = False,
        max_tiles: int = 1,
        exif: bool = True,
    ) -> Encoded:
        """One conversation (see `neo.processing.chat`) to tensors.

        Args:
            messages: the conversation.
            add_generation_prompt: open the assistant's turn at the end.
            continue_final_message: leave the last turn open, for the model to go on with it.
            min_pixels, max_pixels: bounds of each picture's resized area; by default the image processor's.
            share_pixels: the training rule for several pictures in one conversation (`shared_max_pixels`). A picture that
                is scaled down is then no news: the log line has level DEBUG.
            max_tiles: cut a picture above max_pixels into up to so many tiles, given after an overview as pictures of
                their own (`tile_image`): up to max_tiles + 1 times the tokens. 1: never.
            exif: turn pictures upright as their EXIF orientation asks.

        Raises:
            ValueError: a malformed conversation, an unreadable picture, or placeholders that are not as many as pictures.
        """
        images = self.image_processor
        min_pixels = images.min_pixels if min_pixels is None else min_pixels
        max_pixels = images.max_pixels if max_pixels is None else max_pixels

        def open_image(source: Any) -> list[Any]:
            image = load_image(source, exif=exif)
            return tile_image(image, max_tiles, max_pixels) if max_tiles != 1 else [image]

        conversation = chat.parse(messages, open_image)
        if share_pixels:
            max_pixels = shared_max_pixels(max_pixels, min_pixels, len(conversation.images))
        notice = logging.DEBUG if share_pixels else logging.WARNING
        found = [
            images.patches(image, min_pixels, max_pixels, notice, f"picture {number}")
            for number, image in enumerate(conversation.images, 1)
        ]
        token_patches = images.token_patches
        counts = [rows * columns // token_patches for _, (rows, columns) in found]
        pieces = chat.pieces(conversation.turns, add_generation_prompt, continue_final_message)
        input_ids, labels = self._tokens(pieces, counts)
        if found:
            pixel_values = torch.cat([torch.from_numpy(patches) for patches, _ in found])
        else:
            pixel_values = torch.empty(0, 3 * images.patch_size**2)
        grids = torch.tensor([grid for _, grid in found], dtype=torch.int64).reshape(-1, 2)
        return Encoded(torch.tensor(input_ids), torch.tensor(labels), pixel_values, grids)

    def _tokens(self, pieces: Any, counts: Sequence[int]) -> tuple[list[int], list[int]]:
        """Token ids and labels of the pieces; `counts` holds the tokens of each picture."""
        plain, ids = self._plain_text(), self.ids
        specials = {chat.IM_START_TOKEN: ids.im_start, chat.IM_END_TOKEN: ids.im_end}
        input_ids: list[int] = []
        labels: list[int] = []
        for piece in pieces:
            if piece.image is not None:
                new = [ids.image_start, *[ids.image] * counts[piece.image], ids.image_end]
            elif piece.special:
                new = [specials[piece.special]]
            elif piece.learn_from:
                new, starts = plain.ids_and_starts(piece.text)
                input_ids += new
                labels += [
                    token if start >= piece.learn_from else NO_LOSS for token, start in zip(new, starts)
                ]
                continue
            else:
                new = plain.ids(piece.text)
            input_ids += new
            labels += [NO_LOSS] * len(new) if piece.learn_from is None else new
        return input_ids, labels

    def _plain_text(self) -> PlainText:
        if not self._plain.fits(self.tokenizer):  # somebody added tokens, or put in another tokenizer
            self.ids = special_ids(self.tokenizer)
            self._plain = PlainText(self.tokenizer)
        return self._plain

    def collate(self, encoded: Sequence[Encoded], padding_side: str = "left") -> dict[str, torch.Tensor]:
        """A batch for the network: conversations padded to one length, pictures of all of them one after another.

        Returns:
            input_ids and attention_mask int64 (B, L), pixel_values float32 (patches, 768), image_grid_hw int64 (N, 2).

        Raises:
            ValueError: no conversation, a padding side other than left and right, a tokenizer without padding token.
        """
        if not encoded:
            raise ValueError("there is no conversation to make a batch of.")
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side must be 'left' or 'right', not {padding_side!r}.")
        if self.tokenizer.pad_token_id is None:
            raise ValueError("the tokenizer has no padding token; set tokenizer.pad_token.")
        length = max(len(one.input_ids) for one in encoded)
        input_ids = torch.full((len(encoded), length), self.tokenizer.pad_token_id, dtype=torch.int64)
        attention_mask = torch.zeros_like(input_ids)
        for row, one in enumerate(encoded):
            tokens = len(one.input_ids)
            place = slice(length - tokens, length) if padding_side == "left" else slice(0, tokens)
            input_ids[row, place] = one.input_ids
            attention_mask[row, place] = 1
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "pixel_values": torch.cat([one.pixel_values for one in encoded]),
            "image_grid_hw": torch.cat([one.image_grid_hw for one in encoded]),
        }
