"""Steps that are left out because loss or gradient are not finite: counted, written down, and bounded."""

import json
import logging
import math
from pathlib import Path

from neo.training.distributed import Ranks

logger = logging.getLogger(__name__)

FILE = "skipped_steps.jsonl"


class Skipped:
    """The skipped steps of a run, in `skipped_steps.jsonl`: step, loss, gradient norm, and the records in it."""

    def __init__(self, output_dir: Path, budget: int, ranks: Ranks, from_step: int = 0, count: int = 0) -> None:
        """Go on with a run's skipped steps; those after the step it goes on from are forgotten.

        Args:
            output_dir: the run's folder.
            budget: steps that may be skipped.
            ranks: this process among the others.
            from_step: steps done.
            count: steps skipped among them.
        """
        self.file, self.budget, self.ranks, self.count = output_dir / FILE, budget, ranks, count
        if ranks.first and self.file.is_file():
            lines = self.file.read_text(encoding="utf-8").splitlines(keepends=True)
            # A process that was killed may have left half a line.
            whole = [line for line in lines if line.endswith("\n")]
            self.file.write_text("".join(line for line in whole if json.loads(line)["step"] <= from_step))

    def add(self, step: int, loss: float, norm: float, records: list[str], guilty: bool) -> None:
        """Write a step down; all ranks together.

        Args:
            step: its number, from 1.
            loss, norm: of all ranks.
            records: what this rank had.
            guilty: whether this rank's own loss is not finite. Where no rank's is, the gradient alone tells nothing
                about whose records they were, and all are written.

        Raises:
            ValueError: more steps are skipped than the budget allows.
        """
        self.count += 1
        gathered = self.ranks.gather((records, guilty))
        some_guilty = any(guilty for _, guilty in gathered)
        names = [name for records, guilty in gathered if guilty or not some_guilty for name in records]
        what = "gradient" if math.isfinite(loss) else "loss"
        if self.ranks.first:
            with self.file.open("a", encoding="utf-8") as file:
                line = {"step": step, "what": what, "loss": str(loss), "gradient_norm": str(norm), "records": names}
                file.write(json.dumps(line) + "\n")
        logger.warning("step %d is skipped: its %s is not finite; its records are in %s", step, what, self.file)
        if self.count > self.budget:
            raise ValueError(
                f"the {what} is not finite at step {step}, and {self.count} steps were skipped so far, more than "
                f"max_skipped_steps={self.budget} allows; lower optimizer.learning_rate, or look at the records in "
                f"{self.file}"
            )
