"""What an index of many records costs: time to make it, bytes on disk, memory of the process that trains with it.

    python benchmarks/index.py
    python benchmarks/index.py --records 100000 --workers 8 --save

The records are texts in one JSONL file, written to a temporary folder. The index is made with `neo.data.index`. A
process of its own then does what training does: it loads the processor, and then (this is what is measured) opens the
source, its index and the stream, and packs every record of an epoch from the index. Resident memory counts the pages of
mapped files that were touched; `private` is the part that no other process could share. Linux only.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import make_parser, processor, save
from rich.console import Console
from rich.table import Table

from neo.data.config import DataConfig, SourceConfig
from neo.data.index import build_index, index_folder
from neo.data.loader import build_loader
from neo.data.mixture import build_mixture, open_sources
from neo.processing.processor import NeoProcessor

MODEL = Path(__file__).parents[1] / "src" / "neo" / "checkpoints" / "neo-demo"
WORDS = ("the", "red", "circle", "is", "left", "of", "a", "blue", "square", "and", "seven", "small", "stars", "below")


def config(folder: Path) -> DataConfig:
    source = SourceConfig(path=str(folder / "records.jsonl"), max_epochs=1)
    return DataConfig({"texts": source}, index=str(folder / "index"), max_seq_length=8192, rows_per_batch=8)


def write_records(folder: Path, count: int) -> None:
    """Answers of 5 to 60 words."""
    draw = random.Random(0)
    with (folder / "records.jsonl").open("w") as file:
        for k in range(count):
            answer = " ".join(draw.choices(WORDS, k=draw.randint(5, 60)))
            turns = [{"from": "human", "value": f"What is in picture {k}?"}, {"from": "gpt", "value": answer}]
            file.write(json.dumps({"conversations": turns}) + "\n")


def memory() -> dict[str, float]:
    """Resident memory of this process in MB: all of it, and the part that belongs to no file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1000 for line in lines if line.endswith(" kB")}
    return {"resident": sizes["VmRSS"], "private": sizes["RssAnon"]}


def processor_seconds() -> float:
    """Of this process and those that it waited for, so far."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def train(folder: Path) -> None:
    """What the training process does with an index; a line of JSON on stdout."""
    encoder = NeoProcessor.from_pretrained(MODEL)
    data = config(folder)
    before, start = memory(), time.process_time()
    mixture = build_mixture(data, seed=0)
    loader = build_loader(data, mixture, encoder)
    opened = time.process_time() - start
    steps = loader.steps()
    packed = time.process_time() - start - opened
    after = memory()
    growth = {name: after[name] - before[name] for name in after}
    print(json.dumps({"open_seconds": opened, "pack_seconds": packed, "steps": steps, "growth_mb": growth}))


def main() -> None:
    parser = make_parser(__doc__, "index_cpu")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="one for each core")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        return train(options.train)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_records(folder, options.records)
        data = config(folder)
        start = time.perf_counter()
        (source,) = open_sources(data)
        opened = time.perf_counter()
        encoder = NeoProcessor.from_pretrained(MODEL)
        begun, before = time.perf_counter(), processor_seconds()
        index = build_index(source, encoder, index_folder(data, "texts"), options.workers)
        wall, spent = time.perf_counter() - begun, processor_seconds() - before
        files = {path.name: path.stat().st_size / options.records for path in index.folder.iterdir()}
        said = subprocess.run(
            [sys.executable, __file__, "--train", name], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
    result = {
        "records": options.records,
        "workers": options.workers,
        "scan_seconds": opened - start,
        "index_seconds": wall,
        "processor_seconds": spent,
        "bytes_per_record": files,
        **json.loads(said.splitlines()[-1]),
    }
    table = Table("", "", title=f"an index of {options.records:,} texts; {processor()}", show_header=False)
    each = f"{1000 * spent / options.records:.2f} ms a record"
    table.add_row("making it", f"{wall:,.0f} s, {spent:,.0f} s of processor time ({each}); --workers {options.workers}")
    table.add_row("on disk", f"{sum(files.values()):.1f} bytes a record")
    table.add_row("opening it to train", f"{1000 * result['open_seconds']:.0f} ms")
    table.add_row("packing an epoch from it", f"{result['pack_seconds']:.1f} s, {result['steps']:,} steps")
    growth = result["growth_mb"]
    table.add_row(
        "memory of that process", f"{growth['resident']:+.0f} MB, of which {growth['private']:.0f} MB private"
    )
    Console().print(table)
    if options.save:
        save("index_cpu", result)


if __name__ == "__main__":
    main()
