"""Time and memory of head and loss, forward and backward: in chunks, against the logits of a whole batch at once.

    python benchmarks/loss.py
    python benchmarks/loss.py --length 2048 --labelled 0.3 --save

`at once` makes the logits of every place and takes the cross-entropy of the labelled ones in float32. `in chunks` is
`neo.model.loss.next_token_loss`. Weights are in bfloat16, or in float32 under autocast, as a single process trains.
Each way runs in a process of its own. Times are processor time of one thread; memory is what the peak of the
process rises by, or on a GPU the peak of its tensors without what is there before.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from report import make_parser, processor, save
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from neo.model.config import IGNORE
from neo.model.loss import CHUNK_LOGITS, next_token_loss

WAYS = ("at once", "in chunks")
WEIGHTS = ("bf16", "autocast")


def held(device: torch.device) -> int:
    """Bytes of the process's peak."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(way: str, weights: str, options: argparse.Namespace) -> dict[str, float]:
    """One way in this process: loss, seconds, bytes."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    device = torch.device(options.device)
    dtype = torch.bfloat16 if weights == "bf16" else torch.float32
    head = nn.Linear(options.width, options.vocabulary, bias=False, dtype=dtype, device=device)
    hidden = torch.randn(1, options.length, options.width, dtype=torch.bfloat16, device=device).requires_grad_()
    labels = torch.randint(0, options.vocabulary, (1, options.length), device=device)
    labels[torch.rand(labels.shape, device=device) >= options.labelled] = IGNORE

    def learn(places: int) -> float:
        x, y = hidden[:, :places], labels[:, :places]
        with torch.autocast(device.type, torch.bfloat16, enabled=weights == "autocast"):
            if way == "in chunks":
                loss, _ = next_token_loss(x, y, head, chunk=CHUNK_LOGITS // options.vocabulary)
            else:
                chosen = y[:, 1:] != IGNORE
                loss = F.cross_entropy(head(x)[:, :-1][chosen].float(), y[:, 1:][chosen])
        loss.backward()
        return loss.item()

    learn(16)
    if device.type == "cuda":
        learn(options.length)  # compiles and chooses kernels
        torch.cuda.reset_peak_memory_stats(device)
    hidden.grad = head.weight.grad = None
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else held(device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    loss = learn(options.length)  # ends with a number, so nothing is still under way
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return {"loss": loss, "seconds": clock() - start, "bytes": held(device) - before}


def main() -> None:
    parser = make_parser(__doc__, "loss_<device>")
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--labelled", type=float, default=1.0, help="share of the places")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options)))
        return
    rows = []
    for weights in WEIGHTS:
        for way in WAYS:
            words = [sys.executable, *sys.argv, "--one", way, weights]
            said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            rows.append({"weights": weights, "way": way} | json.loads(said.splitlines()[-1]))
    about = f"{options.length:,} places, {options.labelled:.0%} labelled, {options.vocabulary:,} words"
    hardware = processor() if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    table = Table("weights", "logits", "loss", "seconds", "GiB", title=f"{about}, width {options.width}; {hardware}")
    for row in rows:
        measured = (f"{row['loss']:.6f}", f"{row['seconds']:.2f}", f"{row['bytes'] / 2**30:.2f}")
        table.add_row(row["weights"], row["way"], *measured)
    Console().print(table)
    if options.save:
        settings = {name: value for name, value in vars(options).items() if name not in ("save", "one")}
        save(f"loss_{torch.device(options.device).type}", {"hardware": hardware, **settings, "rows": rows})


if __name__ == "__main__":
    main()
