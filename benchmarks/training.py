"""This loop with packed rows against the same model in transformers' Trainer with padded batches.

    python benchmarks/training.py --save             # on CPU; about five minutes on two quiet cores
    python benchmarks/training.py --steps 24 --repeats 3
    python benchmarks/training.py --loop 2b --max-seq-length 16384 --compile true --save  # this loop alone, on a GPU

The model: hidden 512, MLP 1536, 8 layers (2 of pre-Buffer), 8 query and 4 key heads of 64, vocabulary 8192, random
weights. The records: conversations of 150 tokens in the median, log-normal with sigma 1 as real mixtures are, no
longer than a row of 2048; two fifths of them hold a picture. Both sides read the same file with the same processor in
their own process, train over float32 weights in the same precision (bf16 where the CPU has instructions for it, else
float32) with the same fused AdamW, clipping and loss, and see on average the same number of tokens in a step: a batch
of 8 records, the Trainer's default, holds as many as one packed row. The ways take turns, `--repeats` times over; the
table has the median of each. Counted are tokens that are not padding; the first steps are left out. `grouped` is the
Trainer's own remedy, batches of records of like length, which changes their order; the longest come first and are not
counted.

`--loop` trains a preset of fresh weights in this loop alone, on such records packed into rows of `--max-seq-length`,
and tells tokens/s, the share of the machine's measured matrix rate in bf16 (MFU) and peak memory.
"""

import argparse
import json
import math
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml
from PIL import Image
from report import make_parser, processor, save
from rich.console import Console
from rich.table import Table

from neo.model.config import NeoConfig
from neo.model.device import choose_device
from neo.model.linear import multiplies_bf16
from neo.model.neo import NeoForConditionalGeneration
from neo.processing.tokenizer import special_ids, train_tokenizer
from neo.training import load_recipe, train
from neo.training.grow import make_processor
from neo.training.metrics import read_metrics

WAYS = ("packed", "padded", "grouped")
VOCABULARY, ROW, MEDIAN, BATCH, WARM = 8192, 2048, 150, 8, 4
OPTIMIZER = {"learning_rate": 3e-4, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.01, "clip": 1.0}


def make_checkpoint(folder: Path) -> None:
    torch.manual_seed(0)
    tokenizer = train_tokenizer([" ".join(WORDS)] * 2, VOCABULARY)
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 8,
        "extra_num_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "tie_word_embeddings": True,
    }
    vision = {"hidden_size": 256, "llm_hidden_size": 512, "min_pixels": 4096, "max_pixels": 4_194_304}
    ids = special_ids(tokenizer).config_fields()
    model = NeoForConditionalGeneration(NeoConfig(text_config=sizes, vision_config=vision, **ids))
    model.save_pretrained(folder)
    make_processor(model, tokenizer).save_pretrained(folder)


def made_up_words(count: int = 3000) -> list[str]:
    draw = random.Random(0)
    syllable = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
    return ["".join(draw.choices(syllable, k=draw.randint(1, 3))) for _ in range(count)]


WORDS = made_up_words()


def make_records(folder: Path, count: int, median: int = MEDIAN, longest: int = ROW) -> None:
    """Records of log-normal length, two fifths of them with a picture that takes about half of it."""
    draw = random.Random(0)
    records = []
    for number in range(count):
        tokens = min(int(draw.lognormvariate(math.log(median), 1)), longest - 100)
        asked = []
        if draw.random() < 0.4 and tokens >= 40:
            columns = max(2, round((tokens / 2) ** 0.5 * draw.uniform(0.7, 1.4)))
            rows = max(2, tokens // 2 // columns)
            coarse = np.random.default_rng(number).integers(0, 255, (rows, columns, 3), dtype=np.uint8)
            path = folder / f"{number}.jpg"
            Image.fromarray(coarse).resize((columns * 32, rows * 32)).save(path)
            asked.append({"type": "image", "image": str(path)})
            tokens -= rows * columns
        question, answer = (" ".join(draw.choices(WORDS, k=max(2, int(tokens * share)))) for share in (0.15, 0.75))
        asked.append({"type": "text", "text": question})
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        records.append({"messages": messages})
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def packed(folder: Path, steps: int, precision: str) -> dict[str, float]:
    """This loop, called as anyone would."""
    recipe = {
        "stage": "sft",
        "model": {"path": str(folder / "model")},
        "data": {
            "sources": {"records": {"kind": "json", "path": str(folder / "records.jsonl")}},
            "max_seq_length": ROW,
            "rows_per_batch": 1,
            "lookahead_rows": 16,
            "workers": 0,
        },
        "output_dir": str(folder / "packed"),
        "steps": steps,
        "optimizer": {**OPTIMIZER, "warmup_steps": 2, "min_fraction": 0.0},
        "precision": precision,
        "loss_reduction": "token",
        "device": "cpu",
        "log_every": WARM,
        "save_every": steps,
        "resume": False,
    }
    path = folder / "packed.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return measured(read_metrics(train(load_recipe(path))))


def measured(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Speed, fill and loss of a run's metrics, the first line left out."""
    durations = [line["seconds"] - before["seconds"] for before, line in pairwise(lines)]
    tokens = sum(line["tokens_per_second"] * time for line, time in zip(lines[1:], durations, strict=True))
    return {
        "tokens_per_s": tokens / sum(durations),
        "fill": statistics.mean(line["fill"] for line in lines[1:]),
        "loss": lines[-1]["loss"],
    }


def padded(folder: Path, steps: int, precision: str, grouped: bool) -> dict[str, float]:
    """transformers' Trainer over the processor's padded batches."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from neo.training.start import load

    model, processor = load(folder / "model")
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    real, cells, ended = [], [], []

    class Records(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(records)

        def __getitem__(self, index: int) -> dict[str, Any]:
            encoded = processor.encode(records[index]["messages"], share_pixels=True)
            return {"input_ids": encoded.input_ids, "encoded": encoded}

    def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        encoded = [item["encoded"] for item in items]
        batch = processor.collate(encoded, padding_side="right")
        labels = [one.labels for one in encoded]
        batch["labels"] = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
        if not len(batch["image_grid_hw"]):
            del batch["pixel_values"], batch["image_grid_hw"]
        real.append(int(batch["attention_mask"].sum()))
        cells.append(batch["input_ids"].numel())
        return batch

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ended.append(time.perf_counter())

    arguments = TrainingArguments(
        output_dir=str(folder / "padded"),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=OPTIMIZER["learning_rate"],
        adam_beta1=OPTIMIZER["beta1"],
        adam_beta2=OPTIMIZER["beta2"],
        adam_epsilon=OPTIMIZER["eps"],
        weight_decay=OPTIMIZER["weight_decay"],
        max_grad_norm=OPTIMIZER["clip"],
        lr_scheduler_type="cosine",
        warmup_steps=2,
        bf16=precision == "bf16",
        use_cpu=True,
        train_sampling_strategy="group_by_length" if grouped else "random",
        remove_unused_columns=False,
        save_strategy="no",
        logging_steps=WARM,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, data_collator=collate, train_dataset=Records(), callbacks=[Clock()])
    trainer.train()
    counted = slice(WARM, steps)
    return {
        "tokens_per_s": sum(real[counted]) / (ended[-1] - ended[WARM - 1]),
        "fill": sum(real[counted]) / sum(cells[counted]),
        "loss": [line["loss"] for line in trainer.state.log_history if "loss" in line][-1],
    }


def one(way: str, folder: Path, steps: int, precision: str) -> dict[str, Any]:
    run = packed if way == "packed" else partial(padded, grouped=way == "grouped")
    figures = run(folder, steps, precision)
    return {"way": way, **figures, "peak_memory_gib": peak_memory()}


def in_own_process(way: str, folder: Path, steps: int, precision: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", way, str(folder), "--steps", str(steps), "--precision", precision]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(ways: list[str], steps: int, repeats: int, precision: str) -> list[dict[str, Any]]:
    """Every way in turn, and all of them again: one row for each run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_checkpoint(folder / "model")
        make_records(folder, steps * BATCH)
        return [in_own_process(way, folder, steps, precision) for _ in range(repeats) for way in ways]


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each way: the median of its runs, and its speed against the padded batches'."""
    rows = []
    for way in dict.fromkeys(run["way"] for run in runs):
        own = [run for run in runs if run["way"] == way]
        rows.append(
            {"way": way} | {name: statistics.median(run[name] for run in own) for name in own[0].keys() - {"way"}}
        )
    base = next((row["tokens_per_s"] for row in rows if row["way"] == "padded"), None)
    return [row | {"against_padded": row["tokens_per_s"] / base if base else None} for row in rows]


def show(rows: list[dict[str, Any]], hardware: str) -> None:
    table = Table(title=f"{hardware}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:,.4g}" for value in row.values()))
    Console().print(table)


def loop_alone(options: argparse.Namespace, overrides: list[str]) -> list[dict[str, Any]]:
    """A preset of fresh weights in this loop, on whatever device there is."""
    rate = matrix_rate(choose_device(options.device))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_records(folder, 400, MEDIAN * options.max_seq_length // ROW, options.max_seq_length)
        recipe = {
            "stage": "sft",
            "model": {"preset": options.loop, "tokenizer_samples": 400},
            "data": {
                "sources": {"records": {"kind": "json", "path": str(folder / "records.jsonl")}},
                "max_seq_length": options.max_seq_length,
                "rows_per_batch": 1,
                "workers": 8,
            },
            "output_dir": str(folder / "run"),
            "steps": options.steps,
            "optimizer": {**OPTIMIZER, "warmup_steps": 2},
            "precision": options.precision,
            "metrics": {"peak_tflops": rate / 1e12},
            "device": options.device,
            "log_every": WARM,
            "save_every": options.steps,
        }
        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        lines = read_metrics(train(load_recipe(path, overrides)))
    mfu = statistics.mean(line["mfu"] for line in lines[1:])
    row = {"way": f"loop {options.loop}", **measured(lines), "peak_memory_gib": lines[-1]["memory_gib"]}
    return [row | {"mfu": mfu, "max_seq_length": options.max_seq_length, "matrix_tflops": rate / 1e12}]


def matrix_rate(device: torch.device) -> float:
    """Floating-point operations per second of a large product in bf16."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times = []
    for _ in range(10):
        wait()
        began = time.perf_counter()
        a @ b
        wait()
        times.append(time.perf_counter() - began)
    return 2 * side**3 / statistics.median(times)


def peak_memory() -> float:
    """Of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = make_parser(__doc__, "training_<device>")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--steps", type=int, default=16, help="optimiser steps of a run, a multiple of 4")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each way")
    parser.add_argument(
        "--precision",
        choices=["bf16", "fp32"],
        help="of both sides; without it bf16 for --loop, and else where this CPU has instructions for it",
    )
    parser.add_argument("--loop", metavar="PRESET", help="demo, 2b or 9b: this loop alone; further words are overrides")
    parser.add_argument("--max-seq-length", type=int, default=16_384, help="of --loop")
    parser.add_argument("--device", default="auto", help="of --loop")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options, overrides = parser.parse_known_args()
    if overrides and not options.loop:
        parser.error(f"unknown words: {' '.join(overrides)}")
    if options.steps % WARM or options.steps < 2 * WARM:
        parser.error(f"--steps must be a multiple of {WARM} and at least {2 * WARM}, not {options.steps}")
    options.precision = options.precision or ("bf16" if options.loop or multiplies_bf16() else "fp32")
    if options.one:
        print(json.dumps(one(options.one[0], Path(options.one[1]), options.steps, options.precision)))
        return
    runs = [] if options.loop else compare(options.ways, options.steps, options.repeats, options.precision)
    rows = loop_alone(options, overrides) if options.loop else summary(runs)
    device = choose_device(options.device if options.loop else "cpu")
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    show(rows, hardware)
    if options.save:
        about = {"hardware": hardware, "transformers": transformers.__version__, "precision": options.precision}
        save(f"training_{device.type}", {**about, "rows": rows, "runs": runs})


if __name__ == "__main__":
    main()
