"""Published checkpoints, both ways: names of tensors, wholeness of folders, ids of picture tokens.

Inside, the tree is `model.vision_model`, `model.language_model`, `lm_head`, which training and serving tools expect.
On disk, the names are the published ones; transformers renames while loading and saving.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.utils import logging as transformers_logging

from neo.model.config import NeoConfig

PUBLISHED_TO_OURS = (
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^vision_model\.embeddings\.", "model.vision_model."),
)
"""How the names of a published checkpoint become those of the module tree."""

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
QUANTIZATION = "quantization_config"
"""Field of config.json that says how the weights are quantised, as in transformers."""
IMAGE_TOKENS = {
    "image_token_id": "<IMG_CONTEXT>",
    "image_start_token_id": "<img>",
    "image_end_token_id": "</img>",
}
"""Field of `NeoConfig` to the token whose id it holds."""


def register_published_names() -> None:
    """Tell transformers how to rename the tensors of a `neo_chat` checkpoint."""
    renamings = [WeightRenaming(published, ours) for published, ours in PUBLISHED_TO_OURS]
    register_checkpoint_conversion_mapping("neo_chat", renamings, overwrite=True)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Inside, transformers loads without a bar on stderr; afterwards its switch is as it was."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def our_name(published: str) -> str:
    """The module tree's name for a tensor of a checkpoint, whichever of the two namings it uses."""
    for pattern, ours in PUBLISHED_TO_OURS:
        published, count = re.subn(pattern, ours, published)
        if count:
            return published
    return published if published.startswith(("model.", "lm_head.")) else f"model.{published}"


def published_name(ours: str) -> str:
    """The published name of a tensor of the module tree."""
    for prefix, published in (
        ("lm_head.", "language_model.lm_head."),
        ("model.language_model.", "language_model.model."),
        ("model.vision_model.", "vision_model.embeddings."),
    ):
        if ours.startswith(prefix):
            return published + ours.removeprefix(prefix)
    return ours


def check_folder(folder: Path, config: NeoConfig, head: bool = True, shapes: bool = True) -> None:
    """Check that a folder holds every tensor of the model in its shape, reading headers only.

    Args:
        folder: a checkpoint folder.
        config: its configuration.
        head: whether the output head is needed.
        shapes: whether shapes must fit.

    Raises:
        ValueError: a file or tensor is missing, unreadable or of the wrong shape; the message names it.
    """
    from neo.model.neo import NeoForConditionalGeneration

    with torch.device("meta"):
        wanted = NeoForConditionalGeneration(config).state_dict()
    if not head or config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    missing = dict(wanted)
    for file, name, tensor in tensors(folder):
        expected, shape = missing.pop(our_name(name), None), tensor.get_shape()
        if expected is not None and shapes and list(expected.shape) != shape:
            raise ValueError(
                f"{file}: tensor {name} has shape {shape} but config.json asks for {list(expected.shape)}; "
                "the weights and the configuration belong to different models"
            )
    if missing:
        names = [published_name(name) for name in missing]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise ValueError(
            f"{folder}: the weights lack tensor {names[0]}{more}, which config.json asks for; "
            "download the checkpoint again or mend its config.json"
        )


def tensors(folder: Path) -> Iterator[tuple[Path, str, Any]]:
    """File, name and safetensors slice (`get_shape()`, and `[:]` to read it) of every tensor of a checkpoint folder.

    Raises:
        ValueError: as `weight_files`, or a file is damaged.
    """
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a dict
                    yield file, name, opened.get_slice(name)
        except SafetensorError as error:
            raise ValueError(f"{file}: not a whole safetensors file ({error}); download it again") from error


def quantization(folder: Path) -> str | None:
    """How NEO quantised the weights of a folder, "int8" or "int4"; None where it did not.

    Raises:
        ValueError: somebody else did.
    """
    entry = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(QUANTIZATION)
    if entry is None:
        return None
    if (
        not isinstance(entry, dict)
        or entry.get("quant_method") != "neo"
        or entry.get("weights") not in ("int8", "int4")
    ):
        raise ValueError(f"{folder}: its weights are quantised in a way that NEO does not know; take the original ones")
    return entry["weights"]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint folder.

    Raises:
        ValueError: there are none, a shard of the index is missing, or the index is unreadable.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        shards = _weight_map(folder / INDEX)
        for name, shard in shards.items():
            if not (folder / shard).is_file():
                raise ValueError(f"{folder / shard}: this shard is missing; {INDEX} says it holds {name}")
        return [folder / shard for shard in sorted(set(shards.values()))]
    pickles = sorted(path.name for path in folder.glob("*.bin")) + sorted(path.name for path in folder.glob("*.pt*"))
    if pickles:
        raise ValueError(
            f"{folder / pickles[0]}: weights in pickle form are not loaded because they can run code; "
            f"convert them to {WEIGHTS}"
        )
    if (folder / "state.json").is_file():
        raise ValueError(
            f"{folder}: a checkpoint on the way of a run; make a model of it with "
            f"neo export --model {folder} --output FOLDER"
        )
    raise ValueError(f"{folder}: no weights here; expected {WEIGHTS} or {INDEX}")


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor to file."""
    try:
        content = json.loads(index.read_text())
    except ValueError as error:
        raise ValueError(f"{index}: not a readable index of shards ({error}); download it again") from error
    for field in ("metadata", "weight_map"):  # transformers reads both
        if field not in content:
            raise ValueError(f"{index}: not a readable index of shards (it lacks {field!r}); download it again")
    shards = content["weight_map"]
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ValueError(f"{index}: weight_map must hold the name of a file for each tensor; download it again")
    for name, shard in shards.items():
        if Path(shard).name != shard:
            raise ValueError(f"{index}: {name} is said to be in {shard!r}, which is not a file beside the index")
    return shards


def prepare_loading(name_or_path: Any, kwargs: dict[str, Any], head: bool) -> dict[str, Any]:
    """Check a local folder before transformers loads it, and keep transformers to safetensors.

    Args:
        name_or_path: what `from_pretrained` was given.
        kwargs: the keyword arguments it was given.
        head: whether the model to load has an output head.

    Returns:
        The keyword arguments to load with.
    """
    kwargs = {"use_safetensors": True, **kwargs}
    if name_or_path is None or kwargs.get("state_dict") is not None:
        return kwargs
    folder = Path(name_or_path, kwargs.get("subfolder") or "")
    if not folder.is_dir():
        return kwargs
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no config.json here, so this is not a checkpoint folder")
    if (weights := quantization(folder)) is not None:
        raise ValueError(
            f"{folder}: its weights are {weights}, which neo.load_model reads; take the original ones here"
        )
    config = kwargs.get("config")
    if not isinstance(config, NeoConfig):
        config = NeoConfig.from_pretrained(folder)
    check_folder(folder, config, head, shapes=not kwargs.get("ignore_mismatched_sizes"))
    return kwargs


def adopt_token_ids(config: NeoConfig, folder: Any) -> None:
    """Take the ids of the picture tokens from a folder's tokenizer, where the configuration has only the defaults."""
    ids = _added_token_ids(Path(str(folder)))
    for field, token in IMAGE_TOKENS.items():
        if token in ids and getattr(config, field) == getattr(NeoConfig, field):
            setattr(config, field, ids[token])


def _added_token_ids(folder: Path) -> dict[str, int]:
    if (folder / "tokenizer.json").is_file():
        added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")).get("added_tokens", [])
        return {token["content"]: token["id"] for token in added}
    if (folder / "added_tokens.json").is_file():
        return json.loads((folder / "added_tokens.json").read_text(encoding="utf-8"))
    return {}
