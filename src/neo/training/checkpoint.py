"""Checkpoints of a run: written whole or not at all, and enough to go on exactly where they were taken.

output_dir/checkpoints/step-000500/   model, processor, and training_state.pt
output_dir/                           the finished model and processor
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from neo.model.neo import NeoForConditionalGeneration
from neo.processing.processor import NeoProcessor

STATE = "training_state.pt"


def save_model(folder: Path, model: NeoForConditionalGeneration, processor: NeoProcessor) -> None:
    """Write model and processor into a folder, in the published layout."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_checkpoint(
    output_dir: Path,
    step: int,
    keep: int,
    model: NeoForConditionalGeneration,
    processor: NeoProcessor,
    state: Any,
) -> Path:
    """Write `step-N` under a temporary name, rename it, and delete all but the newest `keep`."""
    folder = output_dir / "checkpoints" / f"step-{step:06d}"
    temporary = _empty(folder.with_name(f".{folder.name}.tmp"))
    save_model(temporary, model, processor)
    torch.save(state, temporary / STATE)
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    for old in checkpoints(output_dir)[:-keep]:
        shutil.rmtree(old)
    return folder


def save_finished(output_dir: Path, model: NeoForConditionalGeneration, processor: NeoProcessor) -> None:
    """Put the finished model into `output_dir` itself, each file whole, the configuration last."""
    temporary = _empty(output_dir / ".finished.tmp")
    save_model(temporary, model, processor)
    for file in sorted(temporary.iterdir(), key=lambda file: file.name == "config.json"):
        os.replace(file, output_dir / file.name)
    temporary.rmdir()


def checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    folders = (output_dir / "checkpoints").glob("step-*")
    return sorted(folders, key=lambda folder: int(folder.name.removeprefix("step-")))


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Optimiser, data position and random state of a checkpoint.

    Raises:
        ValueError: the file is missing.
    """
    if not (checkpoint / STATE).is_file():
        raise ValueError(f"{checkpoint}: no {STATE} here, so the run cannot go on from it; remove the folder")
    return torch.load(checkpoint / STATE, map_location="cpu", weights_only=True)


def _empty(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder
