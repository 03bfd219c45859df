"""The model and processor that a run starts from."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig

from neo.data.mixture import Mixture
from neo.model import names
from neo.model.checkpoint import adopt_token_ids, without_progress_bars
from neo.model.config import NeoConfig, preset
from neo.model.from_llm import grown_config
from neo.model.neo import NeoForConditionalGeneration
from neo.processing.processor import NeoProcessor
from neo.processing.tokenizer import special_ids, train_tokenizer
from neo.training import checkpoint
from neo.training.config import ModelConfig
from neo.training.distributed import Ranks, settle
from neo.training.grow import grow, make_processor

logger = logging.getLogger(__name__)


def load(path: str | Path) -> tuple[NeoForConditionalGeneration, NeoProcessor]:
    """A NEO by its name or folder, or a checkpoint on the way of a run, in float32 and its processor.

    Raises:
        ValueError: the folder holds no whole checkpoint.
    """
    folder = _resolved(path)
    logger.info("loading %s", path)
    if (folder / checkpoint.STATE).is_file():
        if checkpoint.read_state(folder)["stream"]["lora"]:
            raise ValueError(
                f"{folder}: a checkpoint of a LoRA run holds adapters alone; let the run come to its end, and give its "
                "folder as the adapter"
            )
        model, processor = skeleton(folder)
        settle(model, torch.device("cpu"))
        checkpoint.load_tensors(folder, dict(model.named_parameters()))
        return model, processor
    with without_progress_bars():
        model = NeoForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model, NeoProcessor.from_pretrained(folder)


def export_checkpoint(folder: Path, output: str | Path) -> Path:
    """Make a model, in the published layout, of a checkpoint on the way of a run, such as the best.

    Args:
        folder: of the checkpoint, as `runs/mine/checkpoints/step-000500`.
        output: folder to write, new or empty.

    Raises:
        ValueError: there is no whole checkpoint of a whole model, or the output folder is not free.
    """
    target = names.new_folder(output)
    checkpoint.save_model(target, *load(folder))
    return target


def _resolved(path: str | Path) -> Path:
    try:
        return names.resolve(path)
    except ValueError as error:
        raise ValueError(f"{error}; or did the stage before it not finish?") from error


def describe(folder: Path, model: NeoForConditionalGeneration, processor: NeoProcessor) -> None:
    """Write all of a model but its weights into a folder."""
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    processor.save_pretrained(folder)


def skeleton(folder: str | Path) -> tuple[NeoForConditionalGeneration, NeoProcessor]:
    """What `describe` wrote: a model on the meta device, which has no weights, and its processor."""
    config = NeoConfig.from_pretrained(folder)
    adopt_token_ids(config, folder)
    return _without_weights(config, GenerationConfig.from_pretrained(folder)), NeoProcessor.from_pretrained(folder)


def together(
    make: Callable[[], tuple[NeoForConditionalGeneration, NeoProcessor]], ranks: Ranks
) -> tuple[NeoForConditionalGeneration, NeoProcessor]:
    """What `make` returns on rank 0; on the other ranks the same, the model on the meta device without weights."""
    made: list[NeoForConditionalGeneration] = []

    def on_first() -> tuple[NeoConfig, GenerationConfig, NeoProcessor]:
        model, processor = make()
        made.append(model)
        return model.config, model.generation_config, processor

    config, generation, processor = ranks.from_first(on_first)
    return (made[0] if made else _without_weights(config, generation)), processor


def _without_weights(config: NeoConfig, generation: GenerationConfig) -> NeoForConditionalGeneration:
    with torch.device("meta"):
        model = NeoForConditionalGeneration(config)
    model.generation_config = generation
    return model


def with_picture_sizes(
    model: NeoForConditionalGeneration,
    processor: NeoProcessor,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> tuple[NeoForConditionalGeneration, NeoProcessor]:
    """The same two with other bounds of a picture's resized area in pixels; they keep them when they are saved.

    Raises:
        ValueError: the smallest is above the largest.
    """
    images, vision = processor.image_processor, model.config.vision_config
    images.min_pixels = vision.min_pixels = images.min_pixels if min_pixels is None else min_pixels
    images.max_pixels = vision.max_pixels = images.max_pixels if max_pixels is None else max_pixels
    if not 1 <= images.min_pixels <= images.max_pixels:
        raise ValueError(
            f"model.vision: min_pixels={images.min_pixels} must be at least 1 and not above "
            f"max_pixels={images.max_pixels}"
        )
    return model, processor


def start(
    config: ModelConfig, stage: str, mixture: Mixture, seed: int
) -> tuple[NeoForConditionalGeneration, NeoProcessor]:
    """The model a stage starts from, in float32, and its processor.

    Args:
        config: what to start from.
        stage: in `llm` a preset gives its language model alone.
        mixture: the training stream, which a preset's tokenizer is made from.
        seed: of fresh weights.

    Raises:
        ValueError: a folder holds no whole checkpoint, or sizes do not fit together.
    """
    if config.path:
        return with_picture_sizes(*load(config.path), **config.vision)
    if config.from_llm:
        return _grown(Path(config.from_llm), config, seed)
    vocabulary = starting_config(config, stage).text_config.vocab_size  # type: ignore[union-attr]
    tokenizer = train_tokenizer(_texts(mixture, config.tokenizer_samples), vocabulary)
    model = _fresh(starting_config(config, stage, **special_ids(tokenizer).config_fields()), seed)
    return model, make_processor(model, tokenizer)


def starting_config(config: ModelConfig, stage: str, **token_ids: int) -> NeoConfig:
    """The configuration of the model a stage starts from; no weights are read.

    Raises:
        ValueError: as `start`, as far as configurations tell.
    """
    if config.path:
        return NeoConfig.from_pretrained(_resolved(config.path))
    if config.from_llm:
        assert config.pre_buffer_layers is not None
        _check_llm(Path(config.from_llm))
        vision = _vision_of(Path(config.from_llm)) | config.vision
        return grown_config(config.from_llm, config.pre_buffer_layers, vision, torch.float32)
    chosen = preset(str(config.preset))
    text = chosen.text_config.to_dict() | config.text  # type: ignore[union-attr]
    vision = chosen.vision_config.to_dict() | config.vision | {"llm_hidden_size": text["hidden_size"]}  # type: ignore[union-attr]
    if stage == "llm":
        text["num_hidden_layers"] -= text["extra_num_layers"]
        text["extra_num_layers"] = 0
    try:
        return NeoConfig(text_config=text, vision_config=vision, **token_ids)
    except StrictDataclassError as error:
        raise ValueError(f"model.text or model.vision: {' '.join(str(error).split())}") from error


def _grown(folder: Path, config: ModelConfig, seed: int) -> tuple[NeoForConditionalGeneration, NeoProcessor]:
    _check_llm(folder)
    assert config.pre_buffer_layers is not None
    vision = _vision_of(folder) | config.vision
    model, processor = grow(folder, config.pre_buffer_layers, vision, torch.float32, seed)
    if processor is None:
        raise ValueError(f"{folder}: no tokenizer here; training needs it beside the weights")
    return model, processor


def _fresh(config: NeoConfig, seed: int) -> NeoForConditionalGeneration:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = NeoForConditionalGeneration(config)
    if not config.text_config.pre_buffer_layers:  # type: ignore[union-attr]
        # Without keys for rows and columns a NEO is exactly a Qwen3.
        for layer in model.model.language_model.layers:
            torch.nn.init.zeros_(layer.self_attn.k_proj_hw.weight)
    return model


def _check_llm(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no language model here to grow from; did the stage before it finish?")


def _vision_of(folder: Path) -> dict[str, Any]:
    """The picture sizes that a language model made by stage llm was planned for; none for a Qwen3."""
    config = NeoConfig.get_config_dict(folder)[0]
    return dict(config.get("vision_config") or {})


def _texts(mixture: Mixture, samples: int) -> Iterable[str]:
    for k in range(samples):
        for message in mixture[k].messages:
            content = message["content"]
            parts = [{"text": content}] if isinstance(content, str) else content
            yield "".join(part.get("text", "") for part in parts)
