"""Which model answered, so that answers of one are never taken for those of another of the same name."""

import hashlib
import json
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from neo.evaluation.answerer import NeoAnswerer
from neo.inference.chat import ChatModel
from neo.model import names

SAMPLES = 1024
"""Numbers of each tensor that a model in memory is told by: training changes nearly all, quantising every one."""


def name_of(model: Any) -> str:
    """What reports call a model.

    Raises:
        ValueError: it is none.
    """
    if isinstance(model, str | Path):
        return str(model)
    if not isinstance(model, ChatModel) and not all(hasattr(model, part) for part in ("name", "answer", "peak_memory")):
        raise ValueError(
            f"model={model!r:.80} is no model: give a name or folder, what neo.load_model returned, or an answerer "
            "with name, answer and peak_memory"
        )
    return model.name


def checkpoint_of(model: Any, adapter: str | Path | None = None, download: bool = False) -> list[int] | str | None:
    """Tells a model's weights from others of its name, as JSON can say it.

    Args:
        model: as `neo.evaluate` takes it.
        adapter, download: as `neo.load_model`.

    Returns:
        When the folders of a name and its adapter were last written; a hash of settings and weights of a NEO in
        memory; None of a server and of an answerer of your own, which are known by their names only.

    Raises:
        ValueError: the name is unknown, or the model is not on this machine.
    """
    if isinstance(model, NeoAnswerer):
        model = model.chat
    if isinstance(model, ChatModel):
        return _hash(model)
    if not isinstance(model, str | Path) or str(model).startswith("openai:"):
        return None
    other = str(model).startswith("hf:")
    folders = [Path(str(model).removeprefix("hf:")) if other else names.resolve(model, download)]
    folders += [] if adapter is None else [Path(adapter).expanduser()]
    there = [folder for folder in folders if folder.is_dir()]
    return [max((file.stat().st_mtime_ns for file in folder.iterdir()), default=0) for folder in there]


def _hash(chat: ChatModel) -> str:
    """Of the settings, and of numbers spread over every tensor."""
    pictures = chat.processor.image_processor
    settings = [chat.model.config.to_dict(), pictures.min_pixels, pictures.max_pixels]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in chain(chat.model.named_parameters(), chat.model.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if not tensor.is_meta:  # those are elsewhere until they are needed, where a model is spread over devices
            some = tensor.detach().flatten()[:: max(1, tensor.numel() // SAMPLES)]
            digest.update(some.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
