"""What the benchmarks share: their command line, and the file that `--save` writes."""

import argparse
import json
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def make_parser(description: str | None, file: str) -> argparse.ArgumentParser:
    """A parser with `--save`.

    Args:
        description: the benchmark's, lines kept.
        file: what is written, as `data_cpu`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help=f"write benchmarks/results/{file}_<date>.json")
    return parser


def save(file: str, report: dict[str, Any]) -> None:
    """Write `results/FILE_DATE.json`, with the machine that it was measured on, and print its path."""
    about = {
        "hardware": processor(),
        "cores": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }
    path = RESULTS / f"{file}_{date.today().isoformat()}.json"
    path.write_text(json.dumps(about | report, indent=1) + "\n")
    print(path)


def processor() -> str:
    """The name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
