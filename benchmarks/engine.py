"""The engine on this machine, against plain `generate` and against a Qwen2.5-VL of equal sizes, in the same run.

    python benchmarks/engine.py
    python benchmarks/engine.py --save

The model is that of benchmarks/inference.py with one 1024 x 1024 picture (1066 tokens). The Qwen2.5-VL has a decoder of
the same sizes, as many picture tokens and a small vision tower (4 layers of width 1024), random weights, transformers'
own generate. Every row is measured in a process of its own. `floor` is what reading the weights once takes, at the
measured speed of reading memory.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from types import SimpleNamespace

import torch
from inference import IMAGE_TOKEN, build, prompt
from report import make_parser, processor, save
from rich.console import Console
from rich.table import Table

SIDE = 1024
NEW_TOKENS = 32
DTYPE = torch.bfloat16
WAYS = ("qwen2.5-vl generate", "neo generate", "engine", "engine fp32", "engine int8", "engine int4")
BATCHES = (1, 8)


def read_bandwidth() -> float:
    """Bytes a second that a sum over memory reads."""
    block = torch.ones(2**28)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        block.sum()
        times.append(time.perf_counter() - start)
    return block.nbytes / min(times)


def timed_generate(model, inputs: dict) -> dict:
    """Seconds to the first token and milliseconds of each after it, medians of 3, through transformers' generate."""

    def run(tokens: int) -> float:
        start = time.perf_counter()
        model.generate(**inputs, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens)
        return time.perf_counter() - start

    run(2)
    first = statistics.median(run(1) for _ in range(3))
    whole = statistics.median(run(NEW_TOKENS + 1) for _ in range(3))
    return {"first_token_s": first, "decode_ms": (whole - first) / NEW_TOKENS * 1000}


def qwen() -> dict:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": 32_000,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 14,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }
    vision = {"depth": 4, "hidden_size": 1024, "intermediate_size": 3072, "num_heads": 16, "out_hidden_size": 1024}
    tokens = {"image_token_id": IMAGE_TOKEN, "vision_start_token_id": 31_001, "vision_end_token_id": 31_002}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens)
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).to(DTYPE).eval()
    cells = SIDE // 16
    inputs = {
        "input_ids": prompt(SIDE)["input_ids"],
        "pixel_values": torch.randn(cells**2, 1176, dtype=DTYPE),
        "image_grid_thw": torch.tensor([[1, cells, cells]]),
    }
    inputs["input_ids"][0, 19] = 31_001
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE_TOKEN).long()
    return timed_generate(model, inputs)


def engine(kind: str) -> dict:
    from neo.inference.engine import Engine
    from neo.inference.generation import Request
    from neo.inference.loading import join_projections
    from neo.inference.quantize import QUANTIZATIONS, quantize
    from neo.processing.processor import Encoded

    model = build(torch.float32 if kind == "fp32" else DTYPE, "sdpa")
    if kind in QUANTIZATIONS:
        quantize(model, kind, DTYPE)
    join_projections(model)
    no_words = SimpleNamespace(decode=lambda *_, **__: "")
    stub = SimpleNamespace(tokenizer=no_words, ids=SimpleNamespace(image=IMAGE_TOKEN))

    def question() -> Encoded:
        one = prompt(SIDE)
        return Encoded(one["input_ids"][0], one["input_ids"][0], one["pixel_values"], one["image_grid_hw"])

    def run(engine: Engine, prompts: list[Encoded]) -> tuple[float, float]:
        """Seconds until all have their first token, and of a step after that."""
        start = time.perf_counter()
        generations = [engine.submit(Request(one, NEW_TOKENS + 1)) for one in prompts]
        while not all(generation.tokens for generation in generations):
            engine.step()
        first, said = time.perf_counter() - start, sum(len(one.tokens) for one in generations)
        start = time.perf_counter()
        while engine.step():
            pass
        rest = sum(len(one.tokens) for one in generations) - said
        return first, (time.perf_counter() - start) / rest * len(prompts)

    result = {}
    with Engine(model, stub, cache_memory=4 * 2**30) as one:  # type: ignore[arg-type]
        run(one, [question()])
        for batch in BATCHES:
            runs = [run(one, [question() for _ in range(batch)]) for _ in range(3 if batch == 1 else 1)]
            first, step = (statistics.median(values) for values in zip(*runs, strict=True))
            suffix = "" if batch == 1 else f"_{batch}"
            result[f"first_token_s{suffix}"], result[f"decode_ms{suffix}"] = first, step * 1000
        asked = question()
        run(one, [asked])
        turns = []
        for _ in range(5):
            ids = torch.cat([asked.input_ids, torch.randint(0, 30_000, (20,))])
            turns.append(run(one, [Encoded(ids, ids, asked.pixel_values, asked.image_grid_hw)])[0])
        result["second_turn_first_token_s"] = statistics.median(turns)
    result["weights_gib"] = sum(one.nbytes for one in [*model.parameters(), *model.buffers()]) / 2**30
    return result


def measure(way: str) -> dict:
    if way == "qwen2.5-vl generate":
        row = qwen()
    elif way == "neo generate":
        row = timed_generate(build(DTYPE, "sdpa"), prompt(SIDE))
    else:
        row = engine(way.partition(" ")[2])
    return {"way": way, **row, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def in_own_process(way: str) -> dict:
    ended = subprocess.run([sys.executable, __file__, "--one", way], check=True, capture_output=True, text=True)
    return json.loads(ended.stdout.splitlines()[-1])


def show(rows: list[dict], bandwidth: float) -> None:
    table = Table(title=f"{processor()}, {torch.get_num_threads()} threads, reads {bandwidth / 1e9:.0f} GB/s")
    names = (
        "first token s",
        "decode ms",
        "of the floor",
        "8 at once: ms a step",
        "second turn s",
        "weights GiB",
        "peak GiB",
    )
    for name in ("way", *names):
        table.add_column(name, justify="left" if name == "way" else "right")
    for row in rows:
        floor = row["weights_gib"] * 2**30 / bandwidth * 1000 if "weights_gib" in row else None
        cells = [
            row["first_token_s"],
            row["decode_ms"],
            f"{floor / row['decode_ms']:.0%}" if floor else None,
            row.get("decode_ms_8"),
            row.get("second_turn_first_token_s"),
            row.get("weights_gib"),
            row["peak_gib"],
        ]
        table.add_row(row["way"], *(f"{cell:.3g}" if isinstance(cell, float) else cell or "" for cell in cells))
    Console(width=140).print(table)


def main() -> None:
    parser = make_parser(__doc__, "engine_cpu")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one)))
        return
    bandwidth = read_bandwidth()
    rows = [in_own_process(way) for way in args.ways]
    show(rows, bandwidth)
    if args.save:
        save("engine_cpu", {"read_gb_per_s": bandwidth / 1e9, "rows": rows})


if __name__ == "__main__":
    main()
