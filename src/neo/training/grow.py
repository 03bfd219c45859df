"""Growing a NEO, processor included, from a language model: what stage pt starts from and `neo init` writes."""

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from neo.model import names
from neo.model.checkpoint import without_progress_bars
from neo.model.device import DTYPES
from neo.model.from_llm import from_llm
from neo.model.neo import NeoForConditionalGeneration
from neo.processing.image import NeoImageProcessor
from neo.processing.processor import NeoProcessor
from neo.processing.tokenizer import IM_END_TOKEN, add_special_tokens, special_ids

logger = logging.getLogger(__name__)


def grow(
    llm: str | Path,
    pre_buffer_layers: int,
    vision: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> tuple[NeoForConditionalGeneration, NeoProcessor | None]:
    """A NEO grown from a language model, and its processor.

    The picture tokens are added to the language model's tokenizer; where the embedding has too few rows for
    them, the new rows (and the head's) are the mean of the others.

    Args:
        llm: folder of the language model, best with its tokenizer.
        pre_buffer_layers: fresh layers to put in front.
        vision: fields of `NeoVisionConfig`; the published ones unless given.
        dtype: the language model's unless given.
        seed: of the fresh weights.

    Returns:
        The model and its processor, None where the folder has no tokenizer.

    Raises:
        ValueError: the language model is not whole or no Qwen3.
    """
    folder = Path(llm).expanduser()
    tokenizer = _tokenizer(folder)
    token_ids = special_ids(tokenizer).config_fields() if tokenizer is not None else {}
    model = from_llm(folder, pre_buffer_layers, vision, dtype=dtype, seed=seed, **token_ids)
    if tokenizer is None:
        return model, None
    _make_room(model, len(tokenizer))
    return model, make_processor(model, tokenizer)


def make_processor(model: NeoForConditionalGeneration, tokenizer: PreTrainedTokenizerBase) -> NeoProcessor:
    """The processor of a new model, whose answers then end where the chat format ends a turn."""
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(IM_END_TOKEN)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return NeoProcessor(NeoImageProcessor.from_vision_config(model.config.vision_config.to_dict()), tokenizer)


def grow_folder(
    llm: str | Path, pre_buffer_layers: int, output: str | Path, dtype: str | None = None, seed: int = 0
) -> Path:
    """Grow a NEO and save it in the published layout.

    Args:
        llm: see `grow`.
        pre_buffer_layers: see `grow`.
        output: folder to write, new or empty.
        dtype: "fp32", "bf16" or "fp16"; the language model's unless given.
        seed: see `grow`.

    Returns:
        The folder written.

    Raises:
        ValueError: as `grow`, or the output folder is not free.
    """
    target = names.new_folder(output)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} must be one of {', '.join(DTYPES)}")
    model, processor = grow(llm, pre_buffer_layers, dtype=DTYPES[dtype] if dtype else None, seed=seed)
    try:
        with without_progress_bars():
            model.save_pretrained(target)
        if processor is not None:
            processor.save_pretrained(target)
    except (OSError, SafetensorError) as error:  # a full disk is the latter
        raise ValueError(f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    return target


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """The folder's tokenizer with the picture tokens; None where it has none."""
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        if folder.is_dir():
            logger.warning("%s has no tokenizer, so the NEO will have none; it needs one to be asked", folder)
        return None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    add_special_tokens(tokenizer)
    return tokenizer


@torch.no_grad()
def _make_room(model: NeoForConditionalGeneration, tokens: int) -> None:
    """Give embedding and head a row for every token of the tokenizer."""
    old = model.config.text_config.vocab_size
    if tokens <= old:
        return
    model.resize_token_embeddings(tokens, mean_resizing=False)
    for weight in {model.model.language_model.embed_tokens.weight, model.lm_head.weight}:
        weight[old:] = weight[:old].mean(0)
    assert model.config.text_config.vocab_size == tokens
