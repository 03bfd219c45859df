"""Checkpoints of a run: written whole or not at all, and enough to go on exactly where they were taken.

output_dir/checkpoints/step-000500/   weights and optimiser (torch.distributed.checkpoint, a file per rank),
                                      state.json, and the model's configuration and processor
output_dir/                           the finished model and processor, in the published layout

A checkpoint is copied aside in memory and written by a thread while training goes on, under a temporary name that it
loses when it is complete. It can be gone on from with any number of ranks.
"""

import errno
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from neo.model.checkpoint import without_progress_bars
from neo.training.distributed import Ranks

logger = logging.getLogger(__name__)

STATE, TENSORS = "state.json", ".metadata"
MODEL, OPTIMIZER = "model.", "optimizer."
"""What the names of saved tensors begin with."""

Named = Mapping[str, Tensor]
"""Parameters by their names in the model."""


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, output_dir: Path, keep: int, keep_best: bool, ranks: Ranks) -> None:
        """Look after a run's folder; what a killed run left half written there is removed.

        Args:
            output_dir: the run's folder.
            keep: newest checkpoints kept.
            keep_best: keep also the one of the lowest score.
            ranks: this process among those that save together.
        """
        self.folder, self.keep, self.keep_best, self.ranks = output_dir / "checkpoints", keep, keep_best, ranks
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        if ranks.first:
            for temporary in self.folder.glob(".step-*.tmp"):
                shutil.rmtree(temporary)

    def save(self, step: int, tensors: Named, state: dict[str, Any], describe: Callable[[Path], None]) -> None:
        """Begin to write `step-N`; all ranks together.

        Args:
            step: N.
            tensors: what `tensors_of` returned; they may change once this returns.
            state: of the rest of the run, as JSON can hold it; `score` is what the best is chosen by.
            describe: writes the model's configuration and processor into a folder.

        Raises:
            ValueError: it, or the one before it, cannot be written.
        """
        self.wait()
        folder = self.folder / f"step-{step:06d}"
        if self.ranks.from_first(folder.exists):
            return
        temporary = folder.with_name(f".{folder.name}.tmp")

        def begin() -> None:
            _empty(temporary)
            describe(temporary)
            (temporary / STATE).write_text(json.dumps(state), encoding="utf-8")

        try:
            self.ranks.from_first(begin)
        except (OSError, SafetensorError) as error:
            self._give_up(temporary, error)
        written = dcp.async_save(dict(tensors), checkpoint_id=temporary, **_group(self.ranks))
        self._pending = self._thread.submit(self._complete, written, temporary, folder)

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            ValueError: it cannot be, as on a full disk.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Let a checkpoint that is being written come to its end; where nobody waited for it, a failure is logged."""
        self._thread.shutdown()
        if self._pending is not None and (error := self._pending.exception()):
            logger.error("%s", error)

    def _complete(self, written: Any, temporary: Path, folder: Path) -> None:
        try:
            written.result()
            if self.ranks.first:
                temporary.rename(folder)
                self._prune()
                logger.info("saved %s", folder)
        except (CheckpointException, OSError) as error:
            self._give_up(temporary, error)

    def _prune(self) -> None:
        """Delete all but the newest and the best."""
        found = oldest_first(self.folder.parent)
        kept = set(found[-self.keep :])
        scores = {folder: score for folder in found if (score := read_state(folder)["score"]) is not None}
        if self.keep_best and scores:
            kept.add(min(scores, key=lambda folder: scores[folder]))
        for folder in found:
            if folder not in kept:
                # Renamed first: one that is half deleted when the run is killed is no checkpoint any more.
                shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}.tmp")))

    def _give_up(self, temporary: Path, error: BaseException) -> None:
        if self.ranks.first:
            shutil.rmtree(temporary, ignore_errors=True)  # a full disk is not to stay full of it
        found = oldest_first(self.folder.parent)
        whole = f"{found[-1]} is whole; the run goes on from it" if found else "there is none before it"
        raise ValueError(
            f"{temporary.with_name(temporary.stem[1:])} cannot be written ({why(error)}); {whole}"
        ) from error


def tensors_of(named: Named, optimizers: Iterable[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """Weights and optimiser state under the names they are saved by."""
    names = {parameter: name for name, parameter in named.items()}
    result = {f"{MODEL}{name}": parameter.detach() for name, parameter in named.items()}
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            result |= {f"{OPTIMIZER}{names[parameter]}.{key}": value for key, value in state.items()}
    return result


def load_tensors(
    folder: Path, named: Named, optimizers: Sequence[torch.optim.Optimizer] = (), ranks: Ranks | None = None
) -> None:
    """Read weights and optimiser state in place, however many ranks saved them; all ranks together.

    Raises:
        ValueError: the checkpoint is of another model, or not whole.
    """
    try:
        saved = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    except OSError as error:
        raise ValueError(f"{folder}: no whole checkpoint here ({why(error)}); remove the folder") from error
    names = {parameter: name for name, parameter in named.items()}
    orders = [[names[p] for group in one.param_groups for p in group["params"]] for one in optimizers]
    stepped = {name for order in orders for name in order}
    tensors = {f"{MODEL}{name}": parameter.detach() for name, parameter in named.items()}
    states: dict[str, dict[str, Tensor]] = {}
    for key, entry in saved.items():
        name, _, part = key.removeprefix(OPTIMIZER).rpartition(".")
        if key.startswith(OPTIMIZER) and name in stepped:
            tensors[key] = states.setdefault(name, {})[part] = _room(entry, named[name])
    try:
        dcp.load(tensors, checkpoint_id=folder, **_group(ranks))
    except CheckpointException as error:
        raise ValueError(f"{folder}: cannot be gone on from ({why(error)})") from error
    for optimizer, order in zip(optimizers, orders, strict=True):
        numbered = {number: states[name] for number, name in enumerate(order) if name in states}
        # Everything else about the optimiser is the recipe's.
        optimizer.load_state_dict({"state": numbered, "param_groups": optimizer.state_dict()["param_groups"]})


def save_model(folder: Path, model: Any, processor: Any, weights: Named | None = None) -> None:
    """Write model and processor into a folder, in the published layout.

    Args:
        folder: where to.
        model: the model.
        processor: its processor.
        weights: the model's, where it is spread over ranks and does not hold them whole.
    """
    with without_progress_bars():
        model.save_pretrained(folder, state_dict=None if weights is None else dict(weights))
    processor.save_pretrained(folder)


def save_finished(output_dir: Path, save: Callable[[Path], None]) -> None:
    """Let `save` write the finished model, and put it into `output_dir` itself: each file whole, config.json last.

    Raises:
        ValueError: it cannot be written, as on a full disk.
    """
    temporary = output_dir / ".finished.tmp"
    try:
        save(_empty(temporary))
        for file in sorted(temporary.iterdir(), key=lambda file: file.name == "config.json"):
            os.replace(file, output_dir / file.name)
        temporary.rmdir()
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise ValueError(
            f"{output_dir}: the finished model cannot be written ({why(error)}); make room and run the same command "
            "again, which goes on from the last checkpoint"
        ) from error


def oldest_first(output_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    folders = (output_dir / "checkpoints").glob("step-*")
    return sorted(folders, key=lambda folder: int(folder.name.removeprefix("step-")))


def read_state(folder: Path) -> dict[str, Any]:
    """What `Checkpoints.save` was given as `state`.

    Raises:
        ValueError: the folder is no checkpoint of a run.
    """
    if not (folder / STATE).is_file():
        raise ValueError(f"{folder}: no {STATE} here, so the run cannot go on from it; remove the folder")
    return json.loads((folder / STATE).read_text(encoding="utf-8"))


def why(error: BaseException) -> str:
    """The reason of a failed save in a few words, found in what torch wraps around it."""
    chain: list[BaseException] = [error]
    if isinstance(error, CheckpointException):
        chain += [failure for failure, _ in error.failures.values()]
    for one in chain:
        cause = one.__cause__ or one.__context__
        if isinstance(one, OSError) and one.errno is not None:
            return os.strerror(one.errno)
        if f"os error {errno.ENOSPC}" in str(one):  # safetensors
            return os.strerror(errno.ENOSPC)
        if cause is not None:
            chain.append(cause)
    return " ".join(str(chain[-1]).split())


def _room(saved: Any, parameter: Tensor) -> Tensor:
    """A tensor to read optimiser state into: as the parameter is sharded, or small as its count of steps."""
    if saved.size == parameter.shape:
        return torch.zeros_like(parameter, dtype=saved.properties.dtype)
    return torch.zeros(saved.size, dtype=saved.properties.dtype)


def _group(ranks: Ranks | None) -> dict[str, Any]:
    if ranks is not None and ranks.saving is not None:
        return {"process_group": ranks.saving}
    # torch warns of what is meant here: a process by itself.
    warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized", UserWarning)
    return {"no_dist": True}


def _empty(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder
