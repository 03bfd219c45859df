"""What quantised weights cost and save: products by number of rows, and the accuracy of a model on the synthetic tasks.

    python benchmarks/quantization.py products
    python benchmarks/quantization.py accuracy neo-demo --samples 500

`products` prints milliseconds of one (3072, 1024) matrix for every way in `neo.inference.quantize`; the numbers of rows
there are from it. The weights of 24 matrices are read in turn, so that they come from memory. Times are of one thread's
own work, the least of several, so that other work on the machine disturbs little.
"""

import argparse
import time
from collections.abc import Callable

import torch
from report import save
from rich.console import Console
from rich.table import Table

import neo
from neo.inference.quantize import Int4Linear, Int8Linear
from neo.model.linear import Linear
from neo.synthetic.tasks import TASKS

ROWS = (1, 2, 3, 4, 8, 16, 32, 64, 96, 128, 256, 512, 1024)
OUTPUTS, INPUTS, MATRICES = 3072, 1024, 24


def products(dtype: torch.dtype = torch.bfloat16) -> list[dict]:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    plain = [Linear(INPUTS, OUTPUTS).to(dtype) for _ in range(MATRICES)]
    int8 = [Int8Linear.of(layer.weight, dtype) for layer in plain]
    int4 = [Int4Linear.of(layer.weight, dtype) for layer in plain]
    ways: dict[str, list[Callable]] = {
        "bf16": plain,
        "int8 kernel": [layer.by_kernel for layer in int8],
        "int8 integers": [layer.by_integers for layer in int8],
        "int8 conversion": [layer.by_conversion for layer in int8],
        "int4 kernel": [layer.by_kernel for layer in int4],
        "int4 conversion": [layer.by_conversion for layer in int4],
        "int8": int8,
        "int4": int4,
    }
    result = []
    for rows in ROWS:
        x = torch.randn(rows, INPUTS, generator=generator).to(dtype)
        slow = {"int8 kernel", "int4 kernel"} if rows > 96 else set()
        times = {name: milliseconds(layers, x) for name, layers in ways.items() if name not in slow}
        result.append({"rows": rows, **times})
    return result


@torch.inference_mode()
def milliseconds(layers: list[Callable], x: torch.Tensor, repeats: int = 7) -> float:
    """The least of several times of one product."""
    times = []
    for _ in range(repeats + 1):
        start = time.thread_time()
        for layer in layers:
            layer(x)
        times.append((time.thread_time() - start) / len(layers))
    return round(1000 * min(times[1:]), 3)


def accuracy(model: str, samples: int) -> list[dict]:
    """Right answers of each task in percent, as it is and quantised."""
    scores = {}
    for kind in (None, "int8", "int4"):
        found = neo.evaluate(neo.load_model(model, device="cpu", quantization=kind), "synthetic", number=samples)
        scores[kind or "as it is"] = found.summary["metrics"]["accuracy"]["families"]
    result = [
        {"task": task, **{kind: round(100 * score[task]["value"], 1) for kind, score in scores.items()}}
        for task in TASKS
    ]
    mean = {kind: round(sum(row[kind] for row in result) / len(result), 2) for kind in list(result[0])[1:]}
    return [*result, {"task": "mean", **mean}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("products")
    ask = commands.add_parser("accuracy")
    ask.add_argument("model")
    ask.add_argument("--samples", type=int, default=500, help="questions of each task")
    for command in commands.choices.values():
        command.add_argument("--save", action="store_true", help="write benchmarks/results/quantization_*_<date>.json")
    args = parser.parse_args()
    rows = products() if args.command == "products" else accuracy(args.model, args.samples)
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(str(row.get(name, "")) for name in rows[0]))
    Console().print(table)
    if args.save:
        save(f"quantization_{args.command}", {"rows": rows})


if __name__ == "__main__":
    main()
