"""Put the arithmetic of docs/scale-out.md into its tables.

    python docs/scale_out.py

Every number comes from a recipe, from the sizes of the model, or from one of the assumptions below. A test checks that
the page is what this script makes of it.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from tables import with_table

from neo.data.index import RECORD
from neo.model.config import preset
from neo.model.neo import NeoForConditionalGeneration
from neo.model.sizes import Arithmetic
from neo.training import TrainConfig, load_recipe
from neo.training.hardware import PEAK_TFLOPS
from neo.training.plan import memory_of
from neo.training.stages import choose_trained

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scale-out.md"
RECIPES = ROOT / "recipes"
RESULTS = ROOT / "benchmarks" / "results"
GIB = 2**30

SIZES = ("2b", "9b")
GPUS, PER_MACHINE = 128, 8
PEAK = PEAK_TFLOPS["H100"] * 1e12
"""Operations a second in bf16, by its datasheet."""
MFU = 0.40
"""Share of it that training is taken to reach."""
FILL = 0.97
"""Of packed rows."""
SAMPLE_TOKENS = {"pt": 410, "mt": 870, "sft": 1610}
"""What a sample has on average if the paper's batches are 128 rows of 8192 tokens."""
LABELLED = 0.3
"""Share of tokens whose next one is asked for; the others need no head."""
PICTURES = {"pt": 0.7, "mt": 0.7, "sft": 1.0}
"""Pictures of a sample on average."""
PICTURE_SIZE = {"pt": "640x480", "mt": "1024x768", "sft": "1024x768"}
"""Of a picture, one of those in benchmarks/data.py."""
PICTURE_KB = {"pt": 60, "mt": 200, "sft": 300}
"""Size of a picture's file."""
RECORDS = {"PT": (345e6, 148e6), "MT": (40e6, 17e6), "SFT": (4e6, 0.0)}
"""With a picture, and without."""
SPAN, PICTURE = 16, 8
"""Bytes of the place of a record in its file (`neo.data.sources.spans`), and of a picture's size in an index."""
DISK = 2e9
"""Bytes a second that a machine writes to the shared storage."""


@dataclass(frozen=True)
class Stage:
    """A recipe and the model it trains, nothing of it allocated."""

    recipe: TrainConfig
    model: NeoForConditionalGeneration
    """On the meta device; what is trained requires a gradient."""
    arithmetic: Arithmetic
    total: int
    """Parameters."""
    trained: int

    @property
    def row(self) -> int:
        return self.recipe.data.max_seq_length

    @property
    def operations_per_token(self) -> float:
        """Of forward and backward, without what is computed again."""
        sees = SAMPLE_TOKENS[self.recipe.stage] // 2
        return self.arithmetic.training(1000, 1000 * sees, round(1000 * LABELLED)) / 1000

    @property
    def tokens_per_second(self) -> float:
        """Of one GPU."""
        return PEAK * MFU / self.operations_per_token

    @property
    def step_seconds(self) -> float:
        return self.recipe.data.rows_per_batch / GPUS * self.row / self.tokens_per_second

    @property
    def checkpoint_bytes(self) -> int:
        return 4 * self.total + 8 * self.trained


@cache
def stage(size: str, name: str) -> Stage:
    """Of the recipe in the paper's numbers."""
    with torch.device("meta"):
        model = NeoForConditionalGeneration(preset(size))
    model.tie_weights()
    choose_trained(model, name)
    return Stage(
        load_recipe(RECIPES / f"neo_{size}_{name}.yaml"),
        model,
        Arithmetic.of(model),
        sum(p.numel() for p in model.parameters()),
        sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def table(heads: str, rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> list[str]:
    names = heads.split(" | ")
    lines = ["| " + heads + " |", "|---|" + "---:|" * (len(names) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def stages() -> list[tuple[str, Stage]]:
    return [(f"NEO-{size.upper()} {name.upper()}", stage(size, name)) for size in SIZES for name in SAMPLE_TOKENS]


def time_table() -> list[str]:
    """How long each stage takes."""
    rows = []
    for name, one in stages():
        tokens = one.recipe.steps * one.recipe.data.rows_per_batch * one.row
        rows.append(
            (
                name,
                f"{one.recipe.steps:,}",
                f"{tokens * FILL / 1e9:,.0f}",
                f"{one.operations_per_token / 1e9:.1f}",
                f"{one.tokens_per_second:,.0f}",
                f"{one.step_seconds:.2f}",
                f"{one.recipe.steps * one.step_seconds / 3600:.1f}",
            )
        )
    return table("stage | steps | 10^9 tokens | GFLOP a token | tokens/s a GPU | s a step | hours", rows)


def memory_table() -> list[str]:
    """What a GPU holds at the most, in GiB, one row of 8192 tokens at a time and all layers computed again."""
    rows = []
    for name, one in stages():
        for strategy, shards in (("hsdp", PER_MACHINE), ("fsdp", GPUS)):
            memory = memory_of(one.recipe, one.model, strategy, GPUS)
            cells = [f"{part / GIB:.1f}" for part in (*asdict(memory).values(), memory.total)]
            rows.append((f"{name}, {strategy}, {shards} share", *cells))
    heads = "weights, gradients, optimiser | gathered | layers' inputs | one layer again | logits | in all"
    return table(f"stage | {heads}", rows)


def network_table() -> list[str]:
    """What a GPU sends and receives in a step with hsdp, and how fast that has to be to take as long as the step."""
    rows = []
    for name, one in stages():
        inside = 2 * 2 * one.total + 4 * one.trained
        between = 2 * 4 * one.trained / PER_MACHINE
        rows.append(
            (
                name,
                f"{inside / 1e9:.1f}",
                f"{inside / one.step_seconds / 1e9:.0f}",
                f"{between / 1e9:.1f}",
                f"{between / one.step_seconds / 1e9:.1f}",
            )
        )
    return table("stage | GB inside a machine | GB/s | GB between machines | GB/s", rows)


def pictures_per_core(picture: str) -> float:
    """That one core makes ready in a second, as measured last."""
    report = json.loads(sorted(RESULTS.glob("data_cpu_*.json"))[-1].read_text(encoding="utf-8"))
    rates = {row["picture"]: row["pictures_per_s_per_core"] for row in report["rows"] if row["pipeline"] == "neo"}
    return rates[picture]


def data_table() -> list[str]:
    """Pictures and bytes that all GPUs together take in."""
    rows = []
    for name, one in stages():
        stage_name = one.recipe.stage
        tokens = one.tokens_per_second * GPUS * FILL
        pictures = tokens / SAMPLE_TOKENS[stage_name] * PICTURES[stage_name]
        rows.append(
            (
                name,
                f"{tokens / 1e6:.2f}",
                f"{tokens / SAMPLE_TOKENS[stage_name]:,.0f}",
                f"{pictures:,.0f}",
                f"{pictures / GPUS:.0f}",
                f"{pictures / GPUS / pictures_per_core(PICTURE_SIZE[stage_name]):.2f}",
                f"{pictures * PICTURE_KB[stage_name] * 1e3 / 1e9:.2f}",
            )
        )
    return table(
        "stage | million tokens/s | samples/s | pictures/s | pictures/s a GPU | cores a GPU | GB/s from storage", rows
    )


def index_table() -> list[str]:
    """Sizes of the indices: where records begin, and the tables of lengths and picture sizes."""
    rows = []
    for name, (pictures, texts) in RECORDS.items():
        row = SPAN + RECORD.itemsize
        total = pictures * (row + PICTURE) + texts * row
        records = pictures + texts
        rows.append((name, f"{records / 1e6:,.0f}", f"{total / records:.0f}", f"{total / 1e9:.1f}"))
    return table("stage | million records | bytes a record | GB", rows)


def checkpoint_table() -> list[str]:
    """Sizes of checkpoints, and how long it takes to write them beside the training."""
    rows = []
    for name, one in stages():
        minutes = one.recipe.save_every * one.step_seconds / 60
        rows.append(
            (
                name,
                f"{one.checkpoint_bytes / 1e9:.0f}",
                f"{one.checkpoint_bytes / PER_MACHINE / 1e9:.1f}",
                f"{one.checkpoint_bytes / DISK:.0f}",
                f"{one.recipe.save_every:,}",
                f"{minutes:.0f}",
            )
        )
    return table("stage | GB | GB a GPU | s to write | steps between | minutes between", rows)


TABLES = {
    "## How long": time_table,
    "## Memory of a GPU": memory_table,
    "## Network": network_table,
    "## Storage and cores": data_table,
    "### Index": index_table,
    "## Checkpoints": checkpoint_table,
}


def filled(text: str) -> str:
    """The page with its tables as computed."""
    for heading, make in TABLES.items():
        text = with_table(text, heading, make())
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
