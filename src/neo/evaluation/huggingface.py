"""Other people's models by transformers: what `AutoModelForImageTextToText` loads, asked by their own chat templates.

One question after the other, which every model can do and which makes a question's seconds its own; the same
question has the same answer in any company.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available

from neo.evaluation.answerer import Answer, one_line
from neo.inference.loading import DTYPES
from neo.inference.messages import Messages
from neo.model.device import choose_device, peak_memory, reset_peak_memory
from neo.processing.chat import parse
from neo.processing.picture import load_image


class HuggingFaceAnswerer:
    """Such a model; see `neo.evaluation.answerer.Answerer`."""

    at_once = 1

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        self.name, self.model, self.processor = name, model.eval(), processor
        reset_peak_memory(model.device)

    def answer(self, conversations: Sequence[Messages], max_new_tokens: int) -> list[Answer]:
        """See `Answerer`."""
        answers = []
        for number, messages in enumerate(conversations, 1):
            try:
                answers.append(self._answer(messages, max_new_tokens))
            except ValueError as error:
                raise ValueError(f"question {number}: {one_line(error)}") from error
        return answers

    def peak_memory(self) -> int | None:
        """See `Answerer`."""
        return peak_memory(self.model.device)

    @torch.inference_mode()
    def _answer(self, messages: Messages, max_new_tokens: int) -> Answer:
        start = time.monotonic()
        inputs = self._inputs(messages)
        length = inputs["input_ids"].shape[1]
        clock = _FirstToken()
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        ids = self.model.generate(**inputs, max_new_tokens=max_new_tokens, stopping_criteria=[clock], **greedy)
        new = ids[0, length:].tolist()
        end = time.monotonic()
        return Answer(
            text=self.processor.tokenizer.decode(new, skip_special_tokens=True).strip(),
            seconds=end - start,
            seconds_to_first_token=None if clock.at is None else clock.at - start,
            new_tokens=len(new),
            prompt_tokens=length,
            complete=len(new) < max_new_tokens or new[-1] in self._ends(),
        )

    def _inputs(self, messages: Messages) -> Any:
        """A conversation as the model takes it."""
        conversation, pictures = peer_messages(messages)
        if self.processor.chat_template or self.processor.tokenizer.chat_template:
            how = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
            inputs = self.processor.apply_chat_template(conversation, **how)
        else:
            inputs = self.processor(text=self._plain(conversation), images=pictures or None, return_tensors="pt")
        return inputs.to(self.model.device, self.model.dtype)

    def _plain(self, conversation: list[dict[str, Any]]) -> str:
        """A single question for a model that was not made to converse, such as Fuyu."""
        if len(conversation) > 1:
            raise ValueError(f"{self.name} has no chat template and takes a single question only")
        adds_them_itself = type(self.processor).__name__ == "FuyuProcessor"
        mark = "" if adds_them_itself else self.processor.image_token
        return "".join(mark if part["type"] == "image" else part["text"] for part in conversation[0]["content"])

    def _ends(self) -> list[int]:
        ends = self.model.generation_config.eos_token_id
        return ends if isinstance(ends, list) else [ends]


def load_huggingface(
    name: str, dtype: str = "auto", device: str = "auto", download: bool = False
) -> HuggingFaceAnswerer:
    """A model of transformers, from a folder or a hub id.

    Args:
        name: of the folder or on the hub.
        dtype, device, download: as in `neo.load_model`.

    Raises:
        ValueError: it is not here, is of no kind that transformers knows as one for pictures and text, or needs what is
            not installed.
    """
    where = choose_device(device)
    if dtype != "auto" and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} must be auto, {', '.join(DTYPES)}")
    try:
        processor = _processor(name, local_files_only=not download)
        model = AutoModelForImageTextToText.from_pretrained(
            name, dtype=DTYPES.get(dtype, "auto"), local_files_only=not download
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ValueError(f"hf:{name} cannot be loaded: {one_line(error)}") from error
    return HuggingFaceAnswerer(f"hf:{name}", model.to(where), processor)


def _processor(name: str, **options: Any) -> Any:
    """A model's processor; without torchvision one for pictures alone.

    transformers has no videos without torchvision, and processors that take videos do not load at all then. Their
    pictures need it in a few models only.
    """
    kind = PROCESSOR_MAPPING.get(type(AutoConfig.from_pretrained(name, **options)), None)
    if kind is None or is_torchvision_available() or "video_processor" not in kind.get_attributes():
        processor = AutoProcessor.from_pretrained(name, **options)
        if (
            hasattr(processor, "image_processor")
            and type(processor.image_processor).__name__ == "FuyuImageProcessorPil"
        ):
            _mend_fuyu(processor.image_processor)
        return processor
    settings, _ = kind.get_processor_dict(name, **options)
    parts = (AutoImageProcessor.from_pretrained(name, **options), AutoTokenizer.from_pretrained(name, **options))
    return _without_video(kind).from_args_and_dict(parts, settings)


def _without_video(kind: Any) -> Any:
    class WithoutVideo(kind):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name != "video_processor":
                return super().check_argument_for_proper_class(argument_name, argument)

    return WithoutVideo


def _mend_fuyu(images: Any) -> None:
    """Let Fuyu's image processor for Pillow take the tensors that its processor hands it.

    transformers 5.23 cuts patches with numpy there, of what is a tensor already; with torchvision it does not.
    """
    patchify = images.patchify_image
    images.patchify_image = lambda image, patch_size=None: torch.from_numpy(patchify(np.asarray(image), patch_size))


class _FirstToken:
    """A stopping criterion that never stops, and knows when it was first asked."""

    def __init__(self) -> None:
        self.at: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        if self.at is None:
            input_ids[0, -1].item()  # waits for the GPU
            self.at = time.monotonic()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def peer_messages(messages: Messages) -> tuple[list[dict[str, Any]], list[Image.Image]]:
    """A conversation as transformers' chat templates take it, and its pictures in order.

    Line breaks around pictures are left out: a peer's template has its own.
    """
    turns, pictures = parse(messages, lambda source: [load_image(source)])
    conversation = []
    for turn in turns:
        content: list[dict[str, Any]] = []
        for part in turn.parts:
            if isinstance(part, int):
                content.append({"type": "image", "image": pictures[part]})
            elif part.strip("\n"):
                content.append({"type": "text", "text": part.strip("\n")})
        conversation.append({"role": turn.role, "content": content})
    return conversation, pictures
