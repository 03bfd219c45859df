"""`NeoProcessor`: conversations with pictures to what the network reads.

`encode` and `collate` are the doors that training and inference use; the rest is transformers' interface. In
`encode` and `apply_chat_template` special tokens come only from the chat format, never from what somebody
wrote: `<|im_end|>` or `<img>` in a message is encoded as the characters it is made of. `__call__` takes a
finished prompt, as everywhere in transformers, and there special tokens in the text count.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import BatchFeature, PreTrainedTokenizerBase
from transformers.image_utils import load_image as fetch_image
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin

from neo.model.config import IGNORE

from . import chat
from .image import NeoImageKwargs, NeoImageProcessor, open_images, shared_max_pixels, smart_resize, tile_image
from .picture import image_size, is_web_address, load_image
from .tokenizer import IMAGE_END_TOKEN, IMAGE_START_TOKEN, IMAGE_TOKEN, PlainText, special_ids

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation as tensors: L tokens, N pictures. Without pictures the last two have no rows."""

    input_ids: torch.Tensor
    """int64 (L,)"""
    labels: torch.Tensor
    """int64 (L,): input_ids on assistant text, its `<|im_end|>` and the newline after; -100 elsewhere."""
    pixel_values: torch.Tensor
    """float32 (patches of all pictures, 768)"""
    image_grid_hw: torch.Tensor
    """int64 (N, 2): rows and columns in patches"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one conversation will be as tensors."""

    tokens: int
    """L."""
    labelled: int
    """Tokens that the model learns to say."""
    sizes: list[tuple[int, int]]
    """(width, height) of each picture in pixels, as in its file."""


class NeoProcessorKwargs(ProcessingKwargs, total=False):  # type: ignore[call-arg]
    """What `NeoProcessor.__call__` takes."""

    images_kwargs: NeoImageKwargs  # type: ignore[misc]


class NeoProcessor(ProcessorMixin):
    """A tokenizer and an image processor that speak NEO's chat format.

    Raises:
        ValueError: the tokenizer lacks one of NEO's special tokens.
    """

    valid_processor_kwargs = NeoProcessorKwargs  # type: ignore[assignment]
    text_kwargs = {"padding_side": "left"}

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
        fetch: bool = False,
    ) -> Encoded:
        """One conversation (see `neo.processing.chat`) to tensors.

        Args:
            messages: the conversation.
            add_generation_prompt: open the assistant's turn at the end.
            continue_final_message: leave the last turn open, for the model to go on with it.
            min_pixels, max_pixels: bounds of each picture's resized area; the image processor's if None.
            share_pixels: the training rule for several pictures in one conversation (`shared_max_pixels`).
                That a picture is scaled down is then no news: it is logged at level DEBUG.
            max_tiles: cut a picture above max_pixels into up to so many tiles, given after an overview as
                pictures of their own: up to max_tiles + 1 times the tokens (`tile_image`). 1: never.
            exif: turn pictures upright as their EXIF orientation asks.
            fetch: fetch pictures given as web addresses. Not for other people's messages, in which an
                address may point into your own network.

        Raises:
            ValueError: a malformed conversation, an unreadable picture, or more or fewer placeholders than
                pictures.
        """
        images = self.image_processor
        smallest = images.min_pixels if min_pixels is None else min_pixels
        largest = images.max_pixels if max_pixels is None else max_pixels

        def open_image(source: Any) -> list[Any]:
            source = _given(source)
            opened = load_image(fetch_image(source) if fetch and is_web_address(source) else source, exif=exif)
            return tile_image(opened, max_tiles, largest)

        conversation = chat.parse(messages, open_image)
        count = len(conversation.images)
        limit = shared_max_pixels(largest, smallest, count) if share_pixels else largest
        notice = logging.DEBUG if share_pixels else logging.WARNING
        found = [
            images.patches(image, smallest, limit, notice, f"picture {number} of {count}")
            for number, image in enumerate(conversation.images, 1)
        ]
        counts = [rows * columns // images.token_patches for _, (rows, columns) in found]
        pieces = chat.pieces(conversation.turns, add_generation_prompt, continue_final_message)
        input_ids, labels = self._tokens(pieces, counts)
        if found:
            pixel_values = torch.cat([torch.from_numpy(patches) for patches, _ in found])
        else:
            pixel_values = torch.empty(0, 3 * images.patch_size**2)
        grids = torch.tensor([grid for _, grid in found], dtype=torch.int64).reshape(-1, 2)
        return Encoded(torch.tensor(input_ids), torch.tensor(labels), pixel_values, grids)

    def measure(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        share_pixels: bool = False,
    ) -> Measured:
        """How long `encode` would make a conversation, exactly, from the heads of its picture files alone.

        Args:
            messages, min_pixels, max_pixels, share_pixels: as in `encode`.

        Raises:
            ValueError: as `encode`, but for pictures that turn out to be damaged when they are decoded.
        """
        images = self.image_processor
        smallest = images.min_pixels if min_pixels is None else min_pixels
        largest = images.max_pixels if max_pixels is None else max_pixels
        conversation = chat.parse(messages, lambda source: [image_size(_given(source))])
        limit = shared_max_pixels(largest, smallest, len(conversation.images)) if share_pixels else largest
        resized = [smart_resize(height, width, images.factor, smallest, limit) for width, height in conversation.images]
        input_ids, labels = self._tokens(chat.pieces(conversation.turns), [0] * len(resized))
        pictures = sum(height * width for height, width in resized) // images.factor**2
        labelled = len(labels) - labels.count(IGNORE)
        return Measured(len(input_ids) + pictures, labelled, conversation.images)

    def _tokens(self, pieces: Iterable[chat.Piece], counts: Sequence[int]) -> tuple[list[int], list[int]]:
        """Token ids and labels of the pieces; `counts` holds the tokens of each picture."""
        if not self._plain.fits(self.tokenizer):  # somebody added tokens, or put in another tokenizer
            self.ids = special_ids(self.tokenizer)
            self._plain = PlainText(self.tokenizer)
        plain, ids = self._plain, self.ids
        specials = {chat.IM_START_TOKEN: ids.im_start, chat.IM_END_TOKEN: ids.im_end}
        input_ids: list[int] = []
        labels: list[int] = []
        for piece in pieces:
            learn_from = piece.learn_from
            if piece.image is not None:
                new = [ids.image_start, *[ids.image] * counts[piece.image], ids.image_end]
            elif piece.special:
                new = [specials[piece.special]]
            elif learn_from:
                new, starts = plain.ids_and_starts(piece.text)
                pairs = zip(new, starts, strict=True)
                labels += [token if start >= learn_from else IGNORE for token, start in pairs]
            else:
                new = plain.ids(piece.text)
            input_ids += new
            if not learn_from:
                labels += [IGNORE] * len(new) if learn_from is None else new
        return input_ids, labels

    def collate(
        self, encoded: Sequence[Encoded], padding_side: str = "left", pad_to_multiple_of: int | None = None
    ) -> dict[str, torch.Tensor]:
        """A batch for the network: conversations padded to one length, the pictures of all in one row.

        Args:
            encoded: the conversations.
            padding_side: "left" or "right".
            pad_to_multiple_of: make the length a multiple of this.

        Returns:
            input_ids and attention_mask int64 (B, L), pixel_values float32 (patches, 768) and image_grid_hw
            int64 (N, 2).

        Raises:
            ValueError: no conversation, an unknown padding side, a tokenizer without padding token.
        """
        if not encoded:
            raise ValueError("there is no conversation to make a batch of.")
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side must be 'left' or 'right', not {padding_side!r}.")
        if self.tokenizer.pad_token_id is None:
            raise ValueError("the tokenizer has no padding token; set tokenizer.pad_token.")
        multiple = pad_to_multiple_of or 1
        length = -(-max(len(one.input_ids) for one in encoded) // multiple) * multiple
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

    # From here on transformers' interface.

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        return_assistant_tokens_mask: bool = False,
        processor_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Conversations to the prompt's text or, with `tokenize`, to the network's inputs.

        As in `encode`, text that looks like a special token is text. Pictures may be web addresses, which
        are fetched as everywhere in transformers (`fetch=False` refuses them). A `chat_template` other than
        NEO's own goes transformers' way, in which special tokens inside messages count.

        Args:
            conversation: one conversation, or a list of them.
            tokenize: False gives the text: one string, or a list of them.
            return_dict: False gives only the input ids.
            return_tensors: "pt" or "np" give arrays padded to one length, None lists of unequal length.
            return_assistant_tokens_mask: also give assistant_masks, 1 where the model learns.
            processor_kwargs, kwargs: in either place, min_pixels, max_pixels, max_tiles, exif and fetch as in
                `encode`; padding (True pads lists, too), padding_side ("left"), pad_to_multiple_of, truncation with
                max_length (longer conversations lose their end, if no picture stands there), and
                return_mm_token_type_ids (also give mm_token_type_ids, 1 on image tokens).

        Returns:
            BatchFeature of input_ids, attention_mask and, where there are pictures, pixel_values and
            image_grid_hw.

        Raises:
            ValueError: as `encode`, and for an option that has no meaning here.
        """
        modes: dict[str, Any] = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
        }
        if (chat_template or self.chat_template) != chat.CHAT_TEMPLATE:
            return super().apply_chat_template(
                conversation,
                chat_template,
                tokenize=tokenize,
                return_dict=return_dict,
                return_tensors=return_tensors,
                return_assistant_tokens_mask=return_assistant_tokens_mask,
                processor_kwargs=dict(processor_kwargs or {}),
                **modes,
                **kwargs,
            )
        batched = isinstance(conversation, list | tuple) and len(conversation) > 0
        batched = batched and isinstance(conversation[0], list | tuple)
        conversations = conversation if batched else [conversation]
        options = _options({**(processor_kwargs or {}), **kwargs})
        if not tokenize:
            prompts = [chat.render(chat.parse(one).turns, **modes) for one in conversations]
            return prompts if batched else prompts[0]
        padding, token_types = options.pop("padding", False), options.pop("return_mm_token_type_ids", False)
        layout = {name: options.pop(name) for name in _LAYOUT_OPTIONS if name in options}
        truncation, limit = options.pop("truncation", False), options.pop("max_length", None)
        encoded = [self.encode(one, **modes, **{"fetch": True, **options}) for one in conversations]
        if truncation:
            if not limit:
                raise ValueError("truncation needs max_length.")
            encoded = [self._cut(one, limit) for one in encoded]
        data: dict[str, Any] = self.collate(encoded, **layout)
        kept = data["attention_mask"].bool()
        if return_assistant_tokens_mask:
            data["assistant_masks"] = torch.zeros_like(data["input_ids"])
            data["assistant_masks"][kept] = torch.cat([(one.labels != IGNORE).long() for one in encoded])
        if token_types:
            data["mm_token_type_ids"] = (data["input_ids"] == self.ids.image).long()
        if not len(data["image_grid_hw"]):
            del data["pixel_values"], data["image_grid_hw"]
        if return_tensors in (None, "auto"):
            return_tensors = None
            for name in data.keys() - {"pixel_values", "image_grid_hw"}:
                rows = zip(data[name], kept, strict=True)
                data[name] = [row.tolist() if padding else row[keep].tolist() for row, keep in rows]
        elif return_tensors != "pt":
            data = {name: values.numpy() for name, values in data.items()}
        return BatchFeature(data, tensor_type=return_tensors) if return_dict else data["input_ids"]

    def _cut(self, encoded: Encoded, limit: int) -> Encoded:
        """The conversation without what stands behind so many tokens."""
        if (encoded.input_ids[limit:] == self.ids.image).any():
            raise ValueError(
                f"the conversation has {len(encoded.input_ids)} tokens, and cutting it to max_length={limit} would cut "
                "a picture; give a larger max_length or none, or a smaller max_pixels."
            )
        return replace(encoded, input_ids=encoded.input_ids[:limit], labels=encoded.labels[:limit])

    def prepare_inputs_layout(  # type: ignore[override]
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> Any:
        """What `__call__` does first: open the pictures, take `<image>` for the image token in `text`."""
        if videos is not None or audio is not None:
            raise ValueError("NEO reads pictures and text; give the frames of a video as pictures.")
        if text is not None:
            text = [text] if isinstance(text, str) else list(text)
            text = [_with_image_token(one) for one in text]
        if images is not None:
            exif = self.image_processor.apply_exif_orientation
            images = open_images(images, kwargs.get("input_data_format"), exif) or None
        return images, text, None, None

    def replace_image_token(self, image_inputs: Mapping[str, Any], image_idx: int, **kwargs: Any) -> str:
        """The tokens that stand for one picture, as text."""
        rows, columns = (int(side) for side in image_inputs["image_grid_hw"][image_idx])
        tokens = rows * columns // self.image_processor.token_patches
        return IMAGE_START_TOKEN + IMAGE_TOKEN * tokens + IMAGE_END_TOKEN

    def _get_num_multimodal_tokens(self, image_sizes: Any = None, **kwargs: Any) -> MultiModalData:
        """Image tokens (without `<img>` and `</img>`) and patches of pictures of these (height, width)."""
        if image_sizes is None:
            return MultiModalData()
        images = self.image_processor
        bounds = [kwargs.get(name) or getattr(images, name) for name in ("min_pixels", "max_pixels")]
        sizes = [smart_resize(height, width, images.factor, *bounds) for height, width in image_sizes]
        return MultiModalData(
            num_image_tokens=[height * width // images.factor**2 for height, width in sizes],
            num_image_patches=[height * width // images.patch_size**2 for height, width in sizes],
        )

    @classmethod
    def get_processor_dict(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, but a chat template without place for pictures (a base LLM's) is left out."""
        values, rest = super().get_processor_dict(*args, **kwargs)
        template = values.get("chat_template")
        if isinstance(template, str) and chat.PLACEHOLDER not in template and IMAGE_TOKEN not in template:
            logger.warning("The checkpoint's chat template has no place for pictures; NEO's own is used.")
            del values["chat_template"]
        return values, rest

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: Any, processor_dict: Any = None, **kwargs: Any
    ) -> list[Any]:
        """Image processor and tokenizer of a checkpoint, also of one published without processor files."""
        path = pretrained_model_name_or_path
        given = {name: kwargs.pop(name) for name in NeoImageKwargs.__annotations__ if name in kwargs}
        tokenizer = cls._load_tokenizer_from_pretrained("tokenizer", path, **kwargs)
        return [NeoImageProcessor.from_pretrained(path, **given, **kwargs), tokenizer]


def _given(source: Any) -> Any:
    if source is None:
        raise ValueError("a part of type image has no picture; give it as 'image', 'url' or 'path'.")
    return source


def _with_image_token(text: Any) -> Any:
    return text.replace(chat.PLACEHOLDER, IMAGE_TOKEN) if isinstance(text, str) else text


_ENCODE_OPTIONS = ("min_pixels", "max_pixels", "max_tiles", "exif", "fetch")
_LAYOUT_OPTIONS = ("padding_side", "pad_to_multiple_of")
_BATCH_OPTIONS = ("padding", *_LAYOUT_OPTIONS, "truncation", "max_length", "return_mm_token_type_ids")
_IDLE_OPTIONS = ("sanitize_control_tokens", "add_special_tokens")
"""Whatever their value: text is always text here, and nothing is added around a prompt."""


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `apply_chat_template` that mean something here; others are refused unless they are off."""
    flat = {key: value for key, value in options.items() if not key.endswith("_kwargs")}
    for group in (value for key, value in options.items() if key.endswith("_kwargs")):
        flat.update(group or {})
    known = _ENCODE_OPTIONS + _BATCH_OPTIONS
    given = [key for key, value in flat.items() if value is not None and value is not False]
    unknown = [key for key in given if key not in known + _IDLE_OPTIONS]
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)}; there are {', '.join(known)}.")
    return {key: value for key, value in flat.items() if key in known and value is not None}
