"""Accuracy of a model on the synthetic tasks' held-out split: `accuracy.json` and `accuracy.md` in a folder.

python benchmarks/accuracy.py src/neo/checkpoints/neo-demo --samples 500
"""

import argparse
import logging
from pathlib import Path

from neo.training.start import load
from neo.training.task_report import MARKDOWN, task_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a checkpoint")
    parser.add_argument("--output", type=Path, help="folder to write to; the checkpoint's own by default")
    parser.add_argument("--samples", type=int, default=500, help="questions of each task")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = args.output or args.model
    task_report(*load(args.model), folder, args.samples)
    print((folder / MARKDOWN).read_text())


if __name__ == "__main__":
    main()
