"""Prefill and decode of the plain model on this machine, against its own eager attention in the same run.

    python benchmarks/inference.py                      # bf16 and fp32, pictures of 512 and 1024 pixels
    python benchmarks/inference.py --dtypes bf16 --sides 1024 --save

The model: hidden 1024, MLP 3072, 14 layers (4 of pre-Buffer), 8 query and 4 key heads of 128, vocabulary 32 000, random
weights. The prompt: one picture and 42 other tokens. Every row is measured in a process of its own, so that
the peak memory is that row's. `floor` is the time that the matrix products of the prefill take by themselves.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch
from report import make_parser, processor, save
from rich.console import Console
from rich.table import Table

from neo.model.config import NeoConfig
from neo.model.neo import NeoForConditionalGeneration

IMAGE_TOKEN = 31_000
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def build(dtype: torch.dtype, backend: str, vocab_size: int = 32_000) -> NeoForConditionalGeneration:
    torch.manual_seed(0)
    config = NeoConfig(
        text_config={
            "vocab_size": vocab_size,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 14,
            "extra_num_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
        },
        vision_config={"llm_hidden_size": 1024},
        image_token_id=IMAGE_TOKEN,
    )
    with torch.device("meta"):
        model = NeoForConditionalGeneration(config)
    model = model.to(dtype).to_empty(device="cpu").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model.set_attn_implementation(backend)
    return model


def prompt(side: int) -> dict[str, torch.Tensor]:
    patches, tokens = side // 16, (side // 32) ** 2
    ids = torch.randint(0, 30_000, (1, tokens + 42))
    ids[0, 20 : 20 + tokens] = IMAGE_TOKEN
    return {
        "input_ids": ids,
        "pixel_values": torch.randn(patches**2, 768),
        "image_grid_hw": torch.tensor([[patches, patches]]),
    }


def seconds(work, repeats: int) -> float:
    """Median wall time after one warm-up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def matrix_floor(model: NeoForConditionalGeneration, tokens: int, dtype: torch.dtype) -> float:
    """Seconds of the layers' matrix products alone, for so many tokens, each in the fastest way there is."""
    layer = model.model.language_model.layers[0]
    matrices = [module for module in layer.modules() if isinstance(module, torch.nn.Linear)]
    inputs = {matrix.in_features: torch.randn(tokens, matrix.in_features, dtype=dtype) for matrix in matrices}

    def products() -> None:
        for matrix in matrices:
            matrix(inputs[matrix.in_features])

    return seconds(products, 5) * len(model.model.language_model.layers)


@torch.inference_mode()
def measure(dtype_name: str, side: int, backend: str, new_tokens: int = 24) -> dict:
    dtype = DTYPES[dtype_name]
    model, inputs = build(dtype, backend), prompt(side)
    length = inputs["input_ids"].shape[1]
    prefill = seconds(lambda: model(**inputs, logits_to_keep=1), 5)

    outputs = model(**inputs, logits_to_keep=1)
    t = int(model.get_positions(inputs["input_ids"], inputs["image_grid_hw"])[0, 0, -1])
    token, times = torch.tensor([[7]]), []
    for step in range(1, new_tokens + 1):
        position = torch.tensor([[[t + step]], [[0]], [[0]]])
        start = time.perf_counter()
        model(input_ids=token, position_ids=position, past_key_values=outputs.past_key_values)
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "dtype": dtype_name,
        "side": side,
        "attention": backend,
        "tokens": length,
        "prefill_s": prefill,
        "prefill_tokens_per_s": length / prefill,
        "prefill_floor_s": matrix_floor(model, length, dtype),
        "decode_ms_per_token": statistics.median(times[3:]) * 1000,
        "peak_memory_gib": peak,
    }


def in_own_process(dtype: str, side: int, backend: str) -> dict:
    command = [sys.executable, __file__, "--one", dtype, str(side), backend]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def show(rows: list[dict]) -> None:
    table = Table(title=f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in (
        "dtype",
        "picture",
        "tokens",
        "attention",
        "prefill tokens/s",
        "floor / prefill",
        "decode ms",
        "peak GiB",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row["dtype"],
            f"{row['side']}²",
            str(row["tokens"]),
            row["attention"],
            f"{row['prefill_tokens_per_s']:.0f}",
            f"{row['prefill_floor_s'] / row['prefill_s']:.0%}",
            f"{row['decode_ms_per_token']:.1f}",
            f"{row['peak_memory_gib']:.2f}",
        )
    Console().print(table)


def main() -> None:
    parser = make_parser(__doc__, "inference_cpu")
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "fp32"], choices=list(DTYPES))
    parser.add_argument("--sides", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--attention", nargs="+", default=["sdpa", "eager"])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        json.dump(measure(args.one[0], int(args.one[1]), args.one[2]), sys.stdout)
        return
    rows = [in_own_process(d, side, a) for d in args.dtypes for side in args.sides for a in args.attention]
    show(rows)
    if args.save:
        save("inference_cpu", {"rows": rows})


if __name__ == "__main__":
    main()
