"""Fine-tuning in one call: a model, records and a few numbers; the recipe is made of them.

from neo.training import train

train(model="neo-demo", dataset="training.json", epochs=3, learning_rate=5e-5, batch_size=4, output_dir="finetuned")
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
from PIL import Image

from neo.data.index import measure
from neo.data.mixture import build_mixture
from neo.data.packing import BUDGET_START, too_long
from neo.data.sources import ListSource, Source
from neo.model import names
from neo.model.device import choose_device
from neo.processing.processor import NeoProcessor
from neo.suggestion import nearest
from neo.training import trainer
from neo.training.config import LoraConfig, TrainConfig
from neo.training.recipe import made, make_config

logger = logging.getLogger(__name__)

NAME = "dataset"
"""What messages and the recipe call the records."""
MAX_TOKENS = 16_384
"""Longest rows that are made without being asked for."""
MULTIPLE = 16
"""Rows have a multiple of so many tokens."""
LOOKED_AT = 20_000
"""Of more records only so many, evenly spread, are looked at before the run."""
ELSEWHERE = {"lr": "learning_rate", "num_train_epochs": "epochs", "per_device_train_batch_size": "batch_size"}
"""What other trainers call an argument of `train`."""


class Prepared(NamedTuple):
    """A recipe and its records."""

    config: TrainConfig
    given: dict[str, Source]
    """Sources of kind memory, by name."""


def train(
    config: TrainConfig | None = None,
    *positional: Any,
    model: str | Path | Mapping[str, Any] | None = None,
    dataset: Any = None,
    epochs: int = 3,
    learning_rate: float = 5e-5,
    batch_size: int = 4,
    output_dir: str | Path = "finetuned",
    seed: int = 0,
    max_steps: int | None = None,
    save_steps: int = 50,
    resume: bool = True,
    lora: LoraConfig | Mapping[str, Any] | None = None,
    download: bool = False,
    **fields: Any,
) -> Path:
    """Train a stage that a recipe describes, or fine-tune a model on records.

    A run that was stopped goes on where it was when it is called again.

    Args:
        config: a recipe; nothing else is given beside it.
        positional: refused; all else is given by its name.
        model: "neo-demo", a published name, a hub id or a folder, as in `neo.load_model`; to set picture sizes,
            too, fields of `ModelConfig`: {"path": "neo-demo", "vision": {"max_pixels": 262_144}}.
        dataset: records (`neo.data.records`): a list of them, a data set of the package `datasets`, or a path: a file
            (JSON, JSONL, Parquet, tar, CSV), a folder or a pattern of them, or a list of paths.
        epochs: how often each record is learned from.
        learning_rate: the highest, after a short warm-up; it falls to a tenth.
        batch_size: records of a step; the last step of an epoch takes what is left.
        output_dir: folder to write; in the end the model is in it, or the adapter.
        seed: of the order of records and the adapters' weights.
        max_steps: steps in all, in place of `epochs`: fewer or more than they have.
        save_steps: steps between checkpoints.
        resume: False refuses a folder that holds checkpoints already.
        lora: train adapters in place of the model: fields of `LoraConfig`, as {"rank": 16}.
        download: fetch a model that is not on this machine from the Hugging Face hub.
        fields: other fields of `TrainConfig`, as device="cpu" or data={"max_seq_length": 2048}.

    Returns:
        `output_dir`: with a model for `neo.load_model(output_dir)`, or with an adapter for
        `neo.load_model(model, adapter=output_dir)`; and with metrics.jsonl, curves.png and recipe.yaml.

    Raises:
        ValueError: an option, a record or the model is wrong; a record is named by file and line.
    """
    if config is None and not positional:
        options: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
        options |= {"seed": seed, "lora": lora, "download": download}
        options |= {"output_dir": output_dir, "max_steps": max_steps, "save_steps": save_steps, "resume": resume}
        return trainer.train(*prepare(model=model, dataset=dataset, **options, **fields))
    if positional or not isinstance(config, TrainConfig):
        raise ValueError(
            "train takes a recipe that load_recipe has read, or arguments by their names, as in "
            f"train(model='neo-demo', dataset='training.json'), not {config!r:.80}"
        )
    if model is not None or dataset is not None or fields:
        raise ValueError("train takes either a recipe or model= and dataset=, not both")
    return trainer.train(config)


def prepare(
    *,
    model: str | Path | Mapping[str, Any] | None,
    dataset: Any,
    epochs: int = 3,
    learning_rate: float = 5e-5,
    batch_size: int = 4,
    output_dir: str | Path = "finetuned",
    seed: int = 0,
    max_steps: int | None = None,
    save_steps: int = 50,
    resume: bool = True,
    lora: LoraConfig | Mapping[str, Any] | None = None,
    download: bool = False,
    **fields: Any,
) -> Prepared:
    """The recipe that `train` makes of its arguments, once it has looked at the records.

    Raises:
        ValueError: as `train`.
    """
    for name in fields.keys() - get_type_hints(TrainConfig):
        if near := ELSEWHERE.get(name) or nearest(name, signature(prepare).parameters):
            raise ValueError(f"train has no argument {name}; did you mean {near}?")
    start: dict[str, Any] = dict(model) if isinstance(model, Mapping) else {"path": model}
    if start.get("path") is None or dataset is None:
        missing = "dataset" if start.get("path") else "model"
        raise ValueError(f"fine-tuning needs a model and a dataset, and the {missing} is missing")
    for name, count in (("epochs", epochs), ("batch_size", batch_size), ("max_steps", max_steps)):
        if count is not None and made(int, count, "", name) < 1:
            raise ValueError(f"{name}={count} must be at least 1")
    if max_steps is not None and "steps" in fields:
        raise ValueError(f"max_steps={max_steps} and steps={fields['steps']} say the same thing; leave out one of them")
    folder = names.resolve(start["path"], download)
    in_memory = not _is_path(dataset)
    on_gpu = choose_device(fields.get("device", "auto")).type == "cuda"
    values: dict[str, Any] = {
        "stage": "sft",
        "model": start | {"path": str(start["path"])},
        "data": {
            "sources": {NAME: _described(dataset) if in_memory else {"path": _as_text(dataset)}},
            "batch_by": "samples",
            "rows_per_batch": batch_size,
            "max_bad_fraction": 0.0,
            "workers": min(4, os.cpu_count() or 1) if on_gpu else 0,
        },
        "output_dir": str(output_dir),
        "optimizer": {"learning_rate": learning_rate, "min_fraction": 0.1},
        "precision": "bf16" if on_gpu else "fp32",
        "seed": seed,
        "save_every": save_steps,
        "resume": resume,
    }
    values = _joined(values, {"lora": lora} | fields)
    config = make_config({"steps": 10**9} | values)  # mistakes in it are told before the records are looked at
    trainer.find_saved(config)
    described, given = config.data.sources[NAME], dict[str, Source]()
    if in_memory:
        given[NAME] = ListSource(dataset, NAME, described.image_root, described.caption_prompt)
    mixture = build_mixture(config.data, config.seed, given)
    source = mixture.sources[[one.name for one in mixture.sources].index(NAME)]
    places = range(len(source)) if mixture.epoch is None else [mixture.locate(k)[1] for k in range(mixture.epoch)]
    logger.info("looking at %d records", len(places))
    processor = NeoProcessor.from_pretrained(folder, **config.model.vision)
    most = values["data"].get("max_seq_length", MAX_TOKENS)
    budget = config.data.max_bad_fraction * max(len(places), BUDGET_START / epochs)
    tip = f"; neo data check {described.path} names all" if isinstance(described.path, str) else ""
    good, longest = _look_at(source, sorted(places), processor, most, budget, tip)
    an_epoch = -(-good // batch_size)
    steps = epochs * an_epoch if max_steps is None else max_steps
    rows = {"max_seq_length": min(most, -(-longest // MULTIPLE) * MULTIPLE)}
    found = {"steps": steps, "log_every": max(1, min(10, steps // 10)), "data": rows}
    config = make_config(_joined(found, values))
    logger.info(
        "%d records of up to %d tokens in rows of %d; %d records a step, %d steps, %.3g epochs",
        *(good, longest, config.data.max_seq_length, batch_size, config.steps, config.steps / an_epoch),
    )
    return Prepared(config, given)


def _look_at(
    source: Source, places: Sequence[int], processor: NeoProcessor, most: int, budget: float, tip: str
) -> tuple[int, int]:
    """How many of these records can be learned from, and the tokens of the longest one.

    Raises:
        ValueError: more of them than `budget` cannot, or none can; `tip` ends the sentence.
    """
    every = -(-len(places) // LOOKED_AT)
    looked_at = places[::every]
    if every > 1:
        logger.info("only %d of them, evenly spread", len(looked_at))
    records, _, problems = measure(source, processor, looked_at)
    reasons = {int(place): reason for place, reason in problems.items()}
    for place, tokens in zip(looked_at, records["tokens"].tolist(), strict=True):
        if tokens > most:
            reasons[place] = source[place].problem(too_long(tokens, most))
    if len(reasons) * every > budget:
        first = next(iter(reasons.values())).rstrip(".")
        more = f" (and {len(reasons) - 1} more cannot be learned from)" if len(reasons) > 1 else ""
        raise ValueError(f"{first}{more}; mend it, or allow some by data.max_bad_fraction{tip}")
    if reasons:
        logger.warning(
            "%d records cannot be learned from; they are left out, and named in their turn%s", len(reasons), tip
        )
    good = [tokens for place, tokens in zip(looked_at, records["tokens"].tolist(), strict=True) if place not in reasons]
    if not good:
        raise ValueError(f"the {len(looked_at)} records of the dataset cannot be learned from{tip}")
    # Where not all are looked at, a longer one is likely.
    return len(places) - len(reasons), max(good) if every == 1 else min(most, 2 * max(good))


def _is_path(dataset: Any) -> bool:
    if isinstance(dataset, list | tuple) and dataset:
        return all(isinstance(one, str | os.PathLike) for one in dataset)
    return isinstance(dataset, str | os.PathLike)


def _as_text(paths: Any) -> str | list[str]:
    return [str(path) for path in paths] if isinstance(paths, list | tuple) else str(paths)


def _described(dataset: Any) -> dict[str, Any]:
    """What the recipe says of records in memory."""
    if isinstance(dataset, Mapping) and {"conversations", "messages"} & dataset.keys():
        raise ValueError("dataset is one record; give a list of records")
    if isinstance(dataset, Sequence) and not dataset:
        raise ValueError("dataset is empty; give at least one record")
    return {"kind": "memory", "fingerprint": _fingerprint(dataset)}


def _fingerprint(dataset: Any) -> str | None:
    """The same for the same records; None where that cannot be told."""
    if not isinstance(dataset, list | tuple):
        return getattr(dataset, "_fingerprint", None)  # of the package datasets
    digest = hashlib.sha256()
    for record in dataset:
        digest.update(json.dumps(record, sort_keys=True, default=_content).encode())
    return digest.hexdigest()[:16]


def _content(value: Any) -> str:
    """What a picture in a record is told by."""
    if isinstance(value, Image.Image):
        value = np.asarray(value)
    content = value.tobytes() if isinstance(value, np.ndarray) else value
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else repr(value)


def _joined(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The values with those of `over` put in their place, fields of fields too."""
    result = dict(values)
    for name, value in over.items():
        value = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        before = result.get(name)
        both = isinstance(value, Mapping) and isinstance(before, Mapping)
        result[name] = _joined(before, value) if both else value  # type: ignore[arg-type]
    return result
