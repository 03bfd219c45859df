"""`NeoProcessor`: conversations with pictures to what the network reads.

`encode` and `collate` are the doors that training and inference use; the rest is transformers' interface. In `encode`
and `apply_chat_template` special tokens come only from the chat format, never from what somebody wrote: text such
as `<|im_end|>` or `<img>` in a message is encoded as the characters it is made of. `__call__` takes a finished prompt,
as in transformers, and there special tokens in the text count.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BatchFeature, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.image_utils import load_image as fetch_image
from transformers.processing_utils import MultiModalData, ProcessingKwargs, ProcessorMixin

from . import chat
from .image import NeoImageKwargs, NeoImageProcessor, open_images, shared_max_pixels, smart_resize, tile_image
from .picture import is_web_address, load_image
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


class NeoProcessorKwargs(ProcessingKwargs, total=False):
    """What `NeoProcessor.__call__` takes."""

    images_kwargs: NeoImageKwargs


class NeoProcessor(ProcessorMixin):
    """A tokenizer and an image processor that speak NEO's chat format.

    Raises:
        ValueError: the tokenizer lacks one of NEO's special tokens.
    """

    valid_processor_kwargs = NeoProcessorKwargs
    text_kwargs = {"padding_side": "left"}  # noqa: RUF012 (transformers' name and type) generation needs it

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
            min_pixels, max_pixels: bounds of each picture's resized area; by default the image processor's.
            share_pixels: the training rule for several pictures in one conversation (`shared_max_pixels`). A picture that
                is scaled down is then no news: the log line has level DEBUG.
            max_tiles: cut a picture above max_pixels into up to so many tiles, given after an overview as pictures of
                their own (`tile_image`): up to max_tiles + 1 times the tokens. 1: never.
            exif: turn pictures upright as their EXIF orientation asks.
            fetch: fetch pictures given as web addresses. Not for other people's messages: an address may point into
                your own network.

        Raises:
            ValueError: a malformed conversation, an unreadable picture, or placeholders that are not as many as pictures.
        """
        images = self.image_processor
        min_pixels = images.min_pixels if min_pixels is None else min_pixels
        max_pixels = images.max_pixels if max_pixels is None else max_pixels

        tile_pixels = max_pixels

        def open_image(source: Any) -> list[Any]:
            if fetch and is_web_address(source):
                source = fetch_image(source)
            return tile_image(load_image(source, exif=exif), max_tiles, tile_pixels)

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
                    token if start >= piece.learn_from else NO_LOSS for token, start in zip(new, starts, strict=True)
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

    # From here on transformers' interface.

    def apply_chat_template(
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
        return_mm_token_type_ids: bool = False,
        padding: bool | str = False,
        padding_side: str = "left",
        processor_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Conversations to the prompt's text or, with `tokenize`, to the network's inputs.

        Like `encode`, text that looks like a special token is text. Besides what `encode` takes, pictures may be web
        addresses, which are fetched as everywhere in transformers (`fetch=False` refuses them). Another `chat_template` than NEO's own goes
        transformers' way, in which special tokens inside messages count.

        Args:
            conversation: one conversation, or a list of them.
            tokenize: False gives the text (one string, or a list of them).
            return_dict: False gives only the input ids.
            return_tensors: "pt" or "np" give tensors padded to one length; None gives lists, padded if `padding`.
            return_assistant_tokens_mask: also give assistant_masks, 1 where the model learns.
            return_mm_token_type_ids: also give mm_token_type_ids, 1 on image tokens.
            processor_kwargs, kwargs: options of `encode`; either place.

        Returns:
            BatchFeature of input_ids, attention_mask and, where there are pictures, pixel_values and image_grid_hw.

        Raises:
            ValueError: as `encode`, and for an option that does not exist.
        """
        modes = {"add_generation_prompt": add_generation_prompt, "continue_final_message": continue_final_message}
        returns = {
            "tokenize": tokenize,
            "return_dict": return_dict,
            "return_tensors": return_tensors,
            "return_assistant_tokens_mask": return_assistant_tokens_mask,
        }
        if (chat_template or self.chat_template) != chat.CHAT_TEMPLATE:
            options = {
                "padding": padding,
                "padding_side": padding_side,
                "return_mm_token_type_ids": return_mm_token_type_ids,
                **(processor_kwargs or {}),
            }
            return super().apply_chat_template(
                conversation, chat_template, **modes, **returns, processor_kwargs=options, **kwargs
            )
        batched = isinstance(conversation, list | tuple) and bool(conversation)
        batched = batched and isinstance(conversation[0], list | tuple)
        conversations = conversation if batched else [conversation]
        if not tokenize:
            prompts = [chat.render(chat.parse(one).turns, **modes) for one in conversations]
            return prompts if batched else prompts[0]
        options = _encode_options({**(processor_kwargs or {}), **kwargs})
        options.setdefault("fetch", True)
        padding = options.pop("padding", padding)
        padding_side = options.pop("padding_side", padding_side)
        return_mm_token_type_ids = options.pop("return_mm_token_type_ids", return_mm_token_type_ids)
        encoded = [self.encode(one, **modes, **options) for one in conversations]
        data: dict[str, Any] = self.collate(encoded, padding_side)
        kept = data["attention_mask"].bool()
        if return_assistant_tokens_mask:
            data["assistant_masks"] = torch.zeros_like(data["input_ids"])
            data["assistant_masks"][kept] = torch.cat([(one.labels != NO_LOSS).long() for one in encoded])
        if return_mm_token_type_ids:
            data["mm_token_type_ids"] = (data["input_ids"] == self.ids.image).long()
        if not len(data["image_grid_hw"]):
            del data["pixel_values"], data["image_grid_hw"]
        if return_tensors is None:
            for name in data.keys() - {"pixel_values", "image_grid_hw"}:
                rows = zip(data[name], kept, strict=True)
                data[name] = [row.tolist() if padding else row[keep].tolist() for row, keep in rows]
        elif return_tensors != "pt":
            data = {name: values.numpy() for name, values in data.items()}
        return BatchFeature(data, tensor_type=return_tensors) if return_dict else data["input_ids"]

    def prepare_inputs_layout(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """Called first by `__call__`: opens the pictures and accepts `<image>` as well as the image token in `text`."""
        if text is not None:
            text = [text] if isinstance(text, str) else list(text)
            text = [one.replace(chat.PLACEHOLDER, IMAGE_TOKEN) if isinstance(one, str) else one for one in text]
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
        """Tokens (`<img>` and `</img>` not counted) and patches of pictures of these (height, width), for servers."""
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
        """As in transformers, but a chat template that has no place for pictures (a base LLM's) is left out."""
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
        """The image processor and the tokenizer of a checkpoint, also of one published without processor files."""
        path = pretrained_model_name_or_path
        given = {name: kwargs.pop(name) for name in NeoImageKwargs.__annotations__ if name in kwargs}
        tokenizer = cls._load_tokenizer_from_pretrained("tokenizer", path, **kwargs)
        try:
            values, _ = NeoImageProcessor.get_image_processor_dict(path, **kwargs)
        except OSError:  # no processor files
            values = {"image_processor_type": None}
        kinds = {values.get(key, "NeoImageProcessor") for key in ("image_processor_type", "feature_extractor_type")}
        if kinds == {"NeoImageProcessor"}:
            return [NeoImageProcessor.from_dict({**values, **given}), tokenizer]
        # Published checkpoints may describe a CLIP processor that was never used; the truth is in the model's config.
        config, _ = PreTrainedConfig.get_config_dict(path, **kwargs)
        return [NeoImageProcessor.from_vision_config(config.get("vision_config") or {}, **given), tokenizer]


def _encode_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of transformers' processors to those of `encode`; one that would have no effect is refused."""
    flat = {key: value for key, value in options.items() if not key.endswith("_kwargs")}
    for group in (value for key, value in options.items() if key.endswith("_kwargs")):
        flat.update(group or {})
    known = {"min_pixels", "max_pixels", "max_tiles", "exif", "fetch", "padding", "padding_side", "return_mm_token_type_ids"}
    idle = {"sanitize_control_tokens": (True, False), "add_special_tokens": (True, False)}  # no difference here
    unknown = [
        key for key, value in flat.items() if key not in known and value not in idle.get(key, (None, False))
    ]
    if unknown:
        raise ValueError(f"unknown option {', '.join(unknown)} for this chat template; known: {', '.join(sorted(known))}.")
    return {key: value for key, value in flat.items() if key in known}
