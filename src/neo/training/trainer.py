"""The training loop."""

import logging
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from neo.data.config import DataConfig
from neo.data.loader import Batch, PackedLoader
from neo.data.mixture import Mixture
from neo.data.packing import Packer
from neo.data.sources import open_source
from neo.model.device import choose_device
from neo.model.loss import document_loss_weights
from neo.training import checkpoint, start
from neo.training.config import TrainConfig
from neo.training.metrics import Metrics, draw_curves
from neo.training.optimizer import build_optimizers, learning_rate
from neo.training.stages import choose_trained

logger = logging.getLogger(__name__)


def train(config: TrainConfig) -> Path:
    """Train one stage, from the newest checkpoint in `output_dir` if there is one.

    Returns:
        `output_dir`, which then holds the finished model and processor, the metrics and the curves.

    Raises:
        ValueError: something in the configuration or the data is wrong, or the loss is not finite.
    """
    return Trainer(config).run()


def build_mixture(config: DataConfig, seed: int) -> Mixture:
    """The training stream of a recipe."""
    sources = [open_source(source, name) for name, source in config.sources.items()]
    return Mixture(sources, [source.weight for source in config.sources.values()], seed)


def _check_extra() -> None:
    """Before a run rather than at its first curves: what only the extra brings must be there."""
    for module in ("matplotlib", "sklearn"):
        if find_spec(module) is None:
            raise ValueError(f"training needs {module}: install the extra with pip install 'neo-vlm[train]'")


class Trainer:
    """One stage of training: model, data, optimiser and how far they are."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.output_dir = Path(config.output_dir)
        self.device = choose_device(config.device)
        _check_extra()
        self.step = 0
        """Steps done."""
        if config.threads:
            torch.set_num_threads(config.threads)
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"output_dir={config.output_dir!r} cannot be made ({error.strerror})") from error
        saved = checkpoint.checkpoints(self.output_dir)
        if saved and not config.resume:
            raise ValueError(f"{self.output_dir} holds checkpoints of a run; use another output_dir or resume=true")
        data = config.data
        mixture = build_mixture(data, config.seed)
        self.model, self.processor = (
            start.load(saved[-1]) if saved else start.start(config.model, config.stage, mixture, config.seed)
        )
        self.model.to(self.device)
        trained = choose_trained(self.model, config.stage)
        self.parameters = [parameter for parameters in trained.values() for parameter in parameters]
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        self.optimizers = build_optimizers(named, config.optimizer)
        packer = Packer(data.max_seq_length, data.rows_per_batch, data.lookahead_rows, data.max_bad_fraction)
        pad = self.processor.tokenizer.pad_token_id or 0
        self.loader = PackedLoader(mixture, self.processor, packer, data.workers, pad)
        torch.manual_seed(config.seed)
        if saved:
            self._restore(saved[-1])
        self.model.train()
        if config.compile:
            for layer in self.model.model.language_model.layers:
                layer.compile()

    def run(self) -> Path:
        """Train to the last step; see `train`."""
        config = self.config
        (self.output_dir / "recipe.yaml").write_text(yaml.safe_dump(config.to_dict(), sort_keys=False))
        if self.step >= config.steps:
            logger.info("%s is at step %d of %d already: nothing to train", self.output_dir, self.step, config.steps)
        metrics = Metrics(self.output_dir, self.step)
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[news]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(config.stage, total=config.steps, completed=self.step, news="")
            for line in self._steps(iter(self.loader)):
                progress.update(task, completed=self.step)
                if line:
                    metrics.add(line)
                    news = f"loss {line['loss']:.4f}  {line['tokens_per_second']:,.0f} tokens/s"
                    progress.update(task, news=news)
                    if not progress.console.is_terminal:
                        logger.info("step %d/%d  %s", self.step, config.steps, news)
                if self.step % config.save_every == 0 and self.step < config.steps:
                    self._save()
                    draw_curves(self.output_dir, f"stage {config.stage}")
        self._save()
        draw_curves(self.output_dir, f"stage {config.stage}")
        checkpoint.save_finished(self.output_dir, self.model, self.processor)
        logger.info("stage %s is done: %s", config.stage, self.output_dir)
        return self.output_dir

    def _steps(self, batches: Iterator[Batch]) -> Iterator[dict[str, Any] | None]:
        """Do the remaining steps; after each, a line of metrics where one is due."""
        began = time.perf_counter()
        losses, tokens, samples, waited, since = [], 0, 0, 0.0, began
        while self.step < self.config.steps:
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            rate = learning_rate(self.step, self.config.steps, self.config.optimizer)
            loss, norm = self._step(batch, rate)
            self.step += 1
            losses.append(loss)
            tokens += batch.tokens
            samples += len(batch.names)
            if self.step % self.config.log_every and self.step < self.config.steps:
                yield None
                continue
            now = time.perf_counter()
            capacity = len(losses) * self.config.data.rows_per_batch * self.config.data.max_seq_length
            yield {
                "step": self.step,
                "loss": sum(losses) / len(losses),
                "learning_rate": rate,
                "gradient_norm": norm,
                "tokens_per_second": tokens / (now - since),
                "samples_per_second": samples / (now - since),
                "fill": tokens / capacity,
                "data_wait": waited / (now - since),
                "seconds": now - began,
            }
            losses, tokens, samples, waited, since = [], 0, 0, 0.0, time.perf_counter()

    def _step(self, batch: Batch, rate: float) -> tuple[float, float]:
        """One optimiser step; the loss and the norm of the gradient before clipping."""
        loss = self._loss(batch)
        if not torch.isfinite(loss):
            raise ValueError(self._not_finite("loss", batch))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.optimizer.clip)
        if not torch.isfinite(norm):
            raise ValueError(self._not_finite("gradient", batch))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item(), norm.item()

    def _loss(self, batch: Batch) -> torch.Tensor:
        inputs = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.inputs.items()}
        weights = document_loss_weights(inputs["labels"], inputs["document_ids"], self.config.loss_reduction)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            return self.model(**inputs, loss_weights=weights).loss

    def _not_finite(self, what: str, batch: Batch) -> str:
        return (
            f"the {what} is not finite at step {self.step + 1}; the batch held {', '.join(batch.names)}; "
            "lower optimizer.learning_rate or look at these records"
        )

    def _save(self) -> None:
        state = {
            "step": self.step,
            "stream": self._stream(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "data": self.loader.state_dict(),
            "random": torch.get_rng_state(),
        }
        saved = checkpoint.save_checkpoint(
            self.output_dir, self.step, self.config.keep, self.model, self.processor, state
        )
        logger.info("saved %s", saved)

    def _stream(self) -> dict[str, Any]:
        """What a position in the data is counted in; with other values it would mean other samples."""
        config = self.config.to_dict()
        data = config["data"]
        return {
            "stage": config["stage"],
            "seed": config["seed"],
            "data.sources": data["sources"],
            "data.max_seq_length": data["max_seq_length"],
        }

    def _restore(self, saved: Path) -> None:
        state = checkpoint.load_state(saved)
        for name, now in self._stream().items():
            if state.get("stream", {}).get(name, now) != now:
                raise ValueError(
                    f"{saved} was made with another {name} than this recipe's, so the run cannot go on with it; "
                    "use another output_dir, or the recipe as it was (recipe.yaml)"
                )
        self.step = state["step"]
        for optimizer, saved_state in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved_state)
        self.loader.load_state_dict(state["data"])
        torch.set_rng_state(state["random"])
        logger.info("going on from %s", saved)
