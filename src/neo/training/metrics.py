"""What a run measures, and where it goes: JSONL and CSV always, TensorBoard and Weights & Biases if wanted."""

import csv
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

FIELDS = {
    "step": "steps done",
    "loss": "mean over the steps since the line before, without those that were skipped",
    "learning_rate": "of the last step, for the parts that have none of their own",
    "gradient_norm": "of the last step, before clipping",
    "tokens_per_second": "over all ranks, without padding",
    "samples_per_second": "over all ranks",
    "fill": "share of the rows' places that hold tokens",
    "data_wait": "share of the time spent waiting for data",
    "mfu": "share of the devices' peak arithmetic that the model needed; null where the peak is not known",
    "memory_gib": "most that a rank has held so far: tensors on a GPU, or the process's memory on CPU",
    "skipped_steps": "since the beginning of the run",
    "seconds": "since this process began to train",
}
"""What a line of metrics holds; beside it `loss/SOURCE` and, where records tell them, `loss/SOURCE/FAMILY`."""
LOSS_OF = "loss/"
"""Begins the names of losses by source."""
JSONL, CSV, VALIDATION = "metrics.jsonl", "metrics.csv", "validation.jsonl"
TENSORBOARD, WANDB_RUN = "tensorboard", "wandb_run.txt"

Line = Mapping[str, Any]


@dataclass
class MetricsConfig:
    """Where metrics go beside metrics.jsonl and metrics.csv, and what they are measured by."""

    tensorboard: bool = False
    """Write them for TensorBoard, into output_dir/tensorboard."""
    wandb: str | None = None
    """Project of Weights & Biases to report to; with WANDB_MODE=offline in the environment they stay here."""
    peak_tflops: float | None = None
    """What mfu is a share of: 10^12 operations a second of one device. By default the data sheet's of GPUs that are
    known (`neo.training.hardware`), in precision bf16."""

    def __post_init__(self) -> None:
        if self.peak_tflops is not None and not self.peak_tflops > 0:
            raise ValueError(f"metrics.peak_tflops={self.peak_tflops} must be above 0")


def check_packages(config: MetricsConfig) -> None:
    """Raise a ValueError, before a run rather than in it, for a writer whose package is missing."""
    for wanted, package in ((config.tensorboard, "tensorboard"), (config.wandb, "wandb")):
        if wanted and find_spec(package) is None:
            raise ValueError(
                f"metrics.{package} needs {package}: install the extra with pip install 'neo-vlm[{package}]'"
            )


class Metrics:
    """Lines of metrics of one run; going on from a step forgets the lines after it."""

    def __init__(
        self,
        folder: Path,
        from_step: int = 0,
        config: MetricsConfig | None = None,
        sources: Iterable[str] = (),
        recipe: Line | None = None,
    ) -> None:
        """Open the files of a run.

        Args:
            folder: the run's.
            from_step: steps done.
            config: what to write to beside the files.
            sources: names that get a column in the CSV.
            recipe: shown by Weights & Biases.

        Raises:
            ValueError: Weights & Biases cannot be reported to.
        """
        config = config or MetricsConfig()
        self.folder = folder
        self.columns = [*FIELDS, *(LOSS_OF + source for source in sources)]
        kept = [line for line in read_metrics(folder) if line["step"] <= from_step] if from_step else []
        _write(folder / JSONL, kept)
        if (folder / VALIDATION).is_file():
            _write(folder / VALIDATION, [one for one in read_validation(folder) if one["step"] <= from_step])
        with (folder / CSV).open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
        self._board = self._wandb = None
        if config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(folder / TENSORBOARD, purge_step=from_step + 1)
        if config.wandb:
            import wandb

            mark = folder / WANDB_RUN
            run = mark.read_text().strip() if from_step and mark.is_file() else secrets.token_hex(8)
            mark.write_text(run + "\n")
            try:
                self._wandb = wandb.init(
                    project=config.wandb,
                    id=run,
                    resume="allow",
                    dir=folder,
                    name=folder.name,
                    config=dict(recipe or {}),
                )
            except wandb.Error as error:
                raise ValueError(f"metrics.wandb={config.wandb}: {error} (or set WANDB_MODE=offline)") from error
            # By a step of our own: its own must never go back, as it does in a run that was killed and goes on.
            self._wandb.define_metric("*", step_metric="step")

    def add(self, line: Line) -> None:
        """Append one line of metrics, as `Meter.line` makes it."""
        with (self.folder / JSONL).open("a") as file:
            file.write(json.dumps(line) + "\n")
        with (self.folder / CSV).open("a", newline="") as file:
            csv.DictWriter(file, self.columns, extrasaction="ignore").writerow(line)
        self._tell(line)

    def add_validation(self, step: int, loss: float) -> None:
        """Append the loss on validation records after a step."""
        with (self.folder / VALIDATION).open("a") as file:
            file.write(json.dumps({"step": step, "loss": loss}) + "\n")
        self._tell({"step": step, "validation_loss": loss})

    def close(self) -> None:
        """Send off what is still on its way."""
        if self._board:
            self._board.close()
        if self._wandb:
            self._wandb.finish()

    def _tell(self, line: Line) -> None:
        known = {name: value for name, value in line.items() if value is not None}
        if self._board:
            for name in known.keys() - {"step"}:
                self._board.add_scalar(name, known[name], line["step"])
        if self._wandb:
            self._wandb.log(known)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run so far."""
    return _read(folder / JSONL)


def read_validation(folder: Path) -> list[dict[str, Any]]:
    """Steps and losses on validation records of a run so far."""
    return _read(folder / VALIDATION)


def _read(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    # A process that was killed may have left half a line.
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _write(file: Path, lines: Iterable[Line]) -> None:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
