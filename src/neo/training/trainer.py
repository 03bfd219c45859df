"""The training loop."""

import logging
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from neo.data.config import DataConfig
from neo.data.loader import build_loader
from neo.data.mixture import Mixture, build_mixture
from neo.data.sources import Source
from neo.model.device import choose_device
from neo.model.neo import NeoForConditionalGeneration
from neo.model.sizes import Arithmetic
from neo.processing.processor import NeoProcessor
from neo.training import checkpoint, start
from neo.training.config import TrainConfig
from neo.training.curves import draw_curves
from neo.training.distributed import Ranks, joined, whole_state
from neo.training.hardware import peak_flops
from neo.training.learner import Learner, Step
from neo.training.lora import add_lora, save_lora
from neo.training.meter import Meter
from neo.training.metrics import Metrics, check_packages
from neo.training.progress import RunProgress
from neo.training.recipe import differences, load_recipe
from neo.training.skipped import Skipped
from neo.training.stages import choose_trained
from neo.training.stopping import Asked, heeding_signals

logger = logging.getLogger(__name__)

UNLEARNED = (
    *("output_dir", "resume", "keep", "save_every", "log_every", "metrics"),
    *("device", "threads", "distributed", "data.workers", "data.index"),
)
"""Fields that a finished run may be given other values of: they change nothing of what it has learned."""
Save = Callable[[Path, dict[str, Tensor]], None]
"""Writes a finished model, whose weights it is given whole, into a folder."""


def train(config: TrainConfig, given: Mapping[str, Source] | None = None) -> Path:
    """Train one stage, from the newest checkpoint in `output_dir` if there is one.

    Args:
        config: the recipe.
        given: sources of kind memory, by name.

    Returns:
        `output_dir`, which then holds the finished model and processor, the metrics and the curves.

    Raises:
        ValueError: something in the configuration or the data is wrong, or loss or gradient are not finite too often.
        SystemExit: with 0 after SIGTERM, the state of the run saved.
        KeyboardInterrupt: after Ctrl-C, the state of the run saved.
    """
    with joined(config.distributed, config.device) as ranks:
        return build(config, ranks, given).run()


def build(config: TrainConfig, ranks: Ranks | None = None, given: Mapping[str, Source] | None = None) -> "Trainer":
    """The trainer of a recipe, with all that it needs; on every rank.

    Args:
        config: the recipe.
        ranks: this process among the others; by itself by default.
        given: sources of kind memory, by name.

    Raises:
        ValueError: something in the configuration or the data is wrong.
    """
    ranks = ranks or Ranks(choose_device(config.device))
    _check_extra()
    check_packages(config.metrics)
    if config.threads:
        torch.set_num_threads(config.threads)
    saved = ranks.from_first(lambda: _open_folder(config))
    mixture = build_mixture(config.data, config.seed, given)

    def begin() -> tuple[NeoForConditionalGeneration, NeoProcessor]:
        return start.start(config.model, config.stage, mixture, config.seed)

    lora = config.lora
    if lora is None:
        model, processor = start.skeleton(saved) if saved else start.together(begin, ranks)
        choose_trained(model, config.stage)
        return Trainer(config, model, processor, mixture, ranks, saved=saved)
    # Checkpoints hold the adapters alone. 4-bit weights are whole on each rank, which makes its own.
    model, processor = begin() if lora.quantize else start.together(begin, ranks)
    if lora.quantize and ranks.size > 1:
        config = replace(config, distributed=replace(config.distributed, strategy="ddp"))
    add_lora(model, lora, str(config.model.path), config.seed, config.precision == "bf16")
    save = partial(save_lora, model, processor)
    return Trainer(config, model, processor, mixture, ranks, saved=saved, save=save, keep_frozen=False)


def find_saved(config: TrainConfig) -> Path | None:
    """The checkpoint that a run goes on from, if there is one.

    Raises:
        ValueError: the output folder is a file, or holds checkpoints that are not to be gone on from.
    """
    output_dir = Path(config.output_dir)
    there = next(place for place in (output_dir, *output_dir.parents) if place.exists())
    if not there.is_dir():
        raise ValueError(
            f"output_dir={config.output_dir!r}: {there} is a file; name a folder, which is made if need be"
        )
    saved = checkpoint.oldest_first(output_dir)
    if saved and not config.resume:
        raise ValueError(f"{output_dir} holds checkpoints of a run; use another output_dir or resume=true")
    return saved[-1] if saved else None


def _open_folder(config: TrainConfig) -> Path | None:
    """`find_saved`, the output folder made where there is none."""
    saved = find_saved(config)
    try:
        Path(config.output_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"output_dir={config.output_dir!r} cannot be made ({error.strerror}); name another folder"
        ) from error
    return saved


def _check_extra() -> None:
    """Before a run rather than at its first curves: what only the extra brings must be there."""
    for module in ("matplotlib", "sklearn"):
        if find_spec(module) is None:
            raise ValueError(f"training needs {module}: install the extra with pip install 'neo-vlm[train]'")


class Trainer:
    """One stage of training: model, data, optimiser and how far they are.

    Every rank has one, and all of them do everything together.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: NeoForConditionalGeneration,
        processor: NeoProcessor,
        mixture: Mixture,
        ranks: Ranks | None = None,
        *,
        saved: Path | None = None,
        save: Save | None = None,
        keep_frozen: bool = True,
    ) -> None:
        """Put the parts together.

        Args:
            config: the recipe; what model and mixture were made from is not looked at again.
            model: float32, what is not to be trained frozen; on ranks above 0, or with `saved`, it may be on the meta
                device.
            processor: encodes records, and is saved beside the model.
            mixture: the training stream.
            ranks: this process among the others; by itself by default.
            saved: the checkpoint to go on from.
            save: writes the finished model; in the published layout by default.
            keep_frozen: write frozen weights into checkpoints too; false where `model` brings them when it goes on.

        Raises:
            ValueError: the parts do not fit together, or the checkpoint is of another run.
        """
        self.config, self.model, self.processor, self.mixture = config, model, processor, mixture
        self.ranks = ranks = ranks or Ranks(choose_device(config.device))
        self.output_dir = Path(config.output_dir)
        self.save = save or (lambda folder, weights: checkpoint.save_model(folder, model, processor, weights))
        self.step = 0
        """Steps done."""
        self.learner = Learner(config, model, ranks)
        self.saved_parameters = dict(model.named_parameters()) if keep_frozen else self.learner.trained
        self.loader = build_loader(config.data, mixture, processor, ranks.rank, ranks.size, ranks.gather)
        self.validation = self._validation_data()
        self.checkpoints = checkpoint.Checkpoints(self.output_dir, config.keep, config.keep_best, ranks)
        self.losses: list[float] = []
        """Of the steps since the last checkpoint that was due by `save_every`."""
        self.metrics: Metrics | None = None
        """Open on rank 0 while the run goes on."""
        skipped = self._restore(saved) if saved else 0
        self.skipped = Skipped(self.output_dir, config.max_skipped_steps, ranks, self.step, skipped)
        model.train()

    def run(self) -> Path:
        """Train to the last step; see `train`."""
        config = self.config
        self.ranks.from_first(self._open)
        try:
            with heeding_signals() as asked:
                stop = self._run(asked)
                # Still heeding: a second signal must not end the saving.
                self._checkpoint()
                self.checkpoints.wait()
        finally:
            self.checkpoints.close()
            if self.metrics:
                self.metrics.close()
        if stop:
            name = signal.Signals(stop).name
            logger.warning("%s: stopped at step %d, which is saved; the same command goes on from it", name, self.step)
            raise KeyboardInterrupt if stop == signal.SIGINT else SystemExit(0)
        weights = whole_state(self.model, self.ranks)
        self.ranks.from_first(lambda: checkpoint.save_finished(self.output_dir, lambda to: self.save(to, weights)))
        logger.info("stage %s is done: %s", config.stage, self.output_dir)
        return self.output_dir

    def _open(self) -> None:
        config, recipe = self.config.to_dict(), self.output_dir / "recipe.yaml"
        if self.step >= self.config.steps:
            self._check_done(recipe)
        recipe.write_text(yaml.safe_dump(config, sort_keys=False))
        self.metrics = Metrics(self.output_dir, self.step, self.config.metrics, config["data"]["sources"], config)

    def _check_done(self, recipe: Path) -> None:
        """Tell of a run that has no steps left; with other values than it had, that is not what was asked for."""
        found = differences(load_recipe(recipe).to_dict(), self.config.to_dict()) if recipe.is_file() else []
        changed = [one for one in found if not one.startswith(UNLEARNED)]
        if changed:
            raise ValueError(
                f"{self.output_dir} has done its {self.step} steps, with other values than are given now: "
                f"{', '.join(changed)}; for a new run give another output_dir, to go on give more steps (or epochs)"
            )
        logger.info(
            "%s is at step %d of %d already: nothing to train; for a new run give another output_dir, to go on give "
            "more steps (or epochs)",
            *(self.output_dir, self.step, self.config.steps),
        )

    def _run(self, asked: Asked) -> int:
        """Do the steps, tell of them and save on the way; the signal that stopped them, or 0."""
        config, first = self.config, self.ranks.first
        with RunProgress(config.stage, config.steps, self.step, quiet=not first) as progress:
            for step, line in self._steps(asked):
                progress.advance(line)
                if line and self.metrics:
                    self.metrics.add(line)
                if step.stop:
                    return step.stop
                if self.step % config.save_every == 0 and self.step < config.steps:
                    self._checkpoint()
        return 0

    def _steps(self, asked: Asked) -> Iterator[tuple[Step, dict[str, Any] | None]]:
        """Do the remaining steps; with each, a line of metrics where one is due."""
        config = self.config
        meter, batches = self._meter(), iter(self.loader)
        while self.step < config.steps:
            batch = meter.wait_for(batches)
            if batch is None:
                logger.warning("the data ended after %d of %d steps", self.step, config.steps)
                return
            step = self.learner.step(self.step, batch, asked)
            self.step += 1
            if step.finite:
                self.losses.append(step.loss)
            else:
                self.skipped.add(self.step, step.loss, step.norm, batch.names, step.guilty)
            meter.add_step(batch, step)
            due = self.step % config.log_every == 0 or self.step == config.steps
            yield step, meter.line(self.step, self.skipped.count) if due else None

    def _meter(self) -> Meter:
        peak = self.config.metrics.peak_tflops
        known = peak_flops(self.ranks.device) if self.config.precision == "bf16" else None
        merge_size = self.model.config.vision_config.merge_size
        return Meter(Arithmetic.of(self.model), merge_size, self.ranks, peak * 1e12 if peak else known)

    def validate(self) -> float:
        """The loss on the validation records, over all ranks."""
        assert self.validation is not None
        batches = build_loader(*self.validation, self.processor, self.ranks.rank, self.ranks.size, self.ranks.gather)
        return self.learner.loss_on(islice(batches, self.config.validation.batches))

    def _validation_data(self) -> tuple[DataConfig, Mixture] | None:
        """The validation records, in rows like those that are learned from."""
        sources = self.config.validation.sources
        if not sources:
            return None
        data = replace(self.config.data, sources=sources, weight_by="samples", index=None, workers=0)
        return data, build_mixture(data, self.config.seed)

    def _checkpoint(self) -> None:
        """Begin to save where the run is, and draw how it came there."""
        failed = None
        on_time = self.step % self.config.save_every == 0 or self.step == self.config.steps
        # The mean of the few steps before a run was stopped cannot be compared with that of `save_every`.
        score = sum(self.losses) / len(self.losses) if self.losses and on_time else None
        if self.validation:
            try:
                score = self.validate()
                logger.info("step %d: validation loss %.4f", self.step, score)
                if self.metrics:
                    self.metrics.add_validation(self.step, score)
            except ValueError as error:  # raised when the steps before it are saved
                score, failed = None, error
        if self.step % self.config.save_every == 0:  # one on being stopped changes nothing for those after it
            self.losses = []
        state = {
            "step": self.step,
            "stream": self._stream(),
            "data": self.loader.state_dict(),
            "skipped": self.skipped.count,
            "losses": self.losses,
            "score": score if score is not None and math.isfinite(score) else None,
        }
        tensors = checkpoint.tensors_of(self.saved_parameters, self.learner.optimizers)
        self.checkpoints.save(self.step, tensors, state, lambda to: start.describe(to, self.model, self.processor))
        if self.ranks.first:
            draw_curves(self.output_dir, f"stage {self.config.stage}")
        if failed:
            raise failed

    def _stream(self) -> dict[str, Any]:
        """What a position in the data is counted in; with other values it would mean other samples."""
        config = self.config.to_dict()
        data = config["data"]
        counted = ["sources", "weight_by", "max_seq_length", "batch_by"]
        counted.append("lookahead_rows" if data["batch_by"] == "rows" else "rows_per_batch")
        return {
            "stage": config["stage"],
            "seed": config["seed"],
            "lora": config["lora"] and config["lora"] | {"of": config["model"]},
            **{f"data.{name}": data[name] for name in counted},
            "number of records": {source.name: len(source) for source in self.mixture.sources},
        }

    def _restore(self, saved: Path) -> int:
        """Go on from a checkpoint; the steps skipped until then."""
        state = checkpoint.read_state(saved)
        for name, now in self._stream().items():
            if state["stream"].get(name, now) != now:
                raise ValueError(
                    f"{saved} was made with another {name} than this recipe's, so the run cannot go on with it; "
                    "use another output_dir, or the recipe as it was (recipe.yaml)"
                )
        checkpoint.load_tensors(saved, self.saved_parameters, self.learner.optimizers, self.ranks)
        self.step = state["step"]
        self.losses = state.get("losses", [])
        self.loader.load_state_dict(state["data"])
        logger.info("going on from %s", saved)
        return state["skipped"]
