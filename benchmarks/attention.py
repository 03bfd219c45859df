"""Which exact form of attention is cheapest on this machine, forward only and with gradients.

    python benchmarks/attention.py            # a table; --save writes it to benchmarks/results, too

Three questions: values padded to the keys' width or not; one dense boolean mask or one kernel call per segment
(`neo.model.attention.SEGMENT_COST` is the break-even in query-key pairs); and what the eager definition costs.
Layouts: one large picture with a short text around it, and packed rows of short documents with small pictures.
"""

import statistics
import time

import torch
from report import make_parser, processor, save
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from neo.model import attention
from neo.model.masks import AttentionMask

HEADS, KV_HEADS, HEAD_DIM = 8, 4, 128


def layout(rows: int, length: int, picture: int, words: int) -> AttentionMask:
    """Rows filled with documents of `words` words around one picture of `picture` tokens."""
    document, image = torch.zeros(rows, length, dtype=torch.long), torch.full((rows, length), -1)
    for start in range(0, length, picture + words):
        document[:, start:] = start
        first = start + words // 2
        image[:, first : first + picture] = torch.arange(rows).unsqueeze(1) * length + start
    return AttentionMask(document, image)


def seconds(
    mask: AttentionMask, attend: attention.Attend, dtype: torch.dtype, gradients: bool, repeats: int = 5
) -> float:
    rows, length = mask.document_ids.shape
    shapes = ((HEADS, 2), (KV_HEADS, 2), (KV_HEADS, 1))
    qkv = [torch.randn(rows, h, length, wide * HEAD_DIM, dtype=dtype, requires_grad=gradients) for h, wide in shapes]
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        out = attend(*qkv)
        if gradients:
            out.sum().backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def unpadded(mask: AttentionMask, scale: float) -> attention.Attend:
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask.dense, scale=scale, enable_gqa=True)


def forms(mask: AttentionMask) -> dict[str, attention.Attend]:
    scale = HEAD_DIM**-0.5
    attention.SEGMENT_COST = 0
    segments = attention.attention_over(mask, scale, "sdpa")
    attention.SEGMENT_COST = 10**12
    dense = attention.attention_over(mask, scale, "sdpa")
    eager = attention.attention_over(mask, scale, "eager")
    return {"segments": segments, "dense": dense, "dense, values not padded": unpadded(mask, scale), "eager": eager}


def main() -> None:
    parser = make_parser(__doc__, "attention_cpu")
    args = parser.parse_args()
    layouts = {
        "1 picture of 1024 tokens": layout(1, 1066, 1024, 42),
        "8 rows of 256: pictures of 16": layout(8, 256, 16, 60),
        "1 row of 2048: pictures of 64": layout(1, 2048, 64, 120),
        "1 row of 4096: pictures of 256": layout(1, 4096, 256, 256),
    }
    results = [
        {
            "layout": name,
            "dtype": str(dtype).removeprefix("torch."),
            "gradients": gradients,
            "form": form,
            "ms": 1000 * s,
        }
        for name, mask in layouts.items()
        for dtype in (torch.bfloat16, torch.float32)
        for gradients in (False, True)
        for form, attend in forms(mask).items()
        for s in [seconds(mask, attend, dtype, gradients)]
    ]
    table = Table(title=f"attention of one layer in ms ({HEADS}/{KV_HEADS} heads of {HEAD_DIM}), {processor()}")
    names = list(dict.fromkeys(row["form"] for row in results))
    for column in ("layout", "dtype", "gradients", *names):
        table.add_column(column)
    for start in range(0, len(results), len(names)):
        group = results[start : start + len(names)]
        first = group[0]
        table.add_row(first["layout"], first["dtype"], str(first["gradients"]), *[f"{row['ms']:.1f}" for row in group])
    Console(width=150).print(table)
    if args.save:
        save("attention_cpu", {"rows": results})


if __name__ == "__main__":
    main()
