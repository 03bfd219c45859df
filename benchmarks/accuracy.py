"""Accuracy of a model on drawn pictures that it was not trained on: `accuracy.json` and `accuracy.md` in a folder.

python benchmarks/accuracy.py src/neo/checkpoints/neo-demo --samples 500
"""

import argparse
import json
import logging
from pathlib import Path

import neo
from neo.evaluation.result import Result
from neo.synthetic.tasks import TASKS

KEPT_MISTAKES = 5


def task_rows(result: Result) -> list[dict]:
    """A row for each task: how many of its questions were answered right, and the first mistakes."""
    rows = []
    for task in result.summary["families"]:
        asked = [row for row in result.rows if row["family"] == task]
        wrong = [row for row in asked if not row["scores"]["accuracy"]]
        mistakes = [
            {"question": row["question"], "expected": row["expected"][0], "predicted": row["answer"]}
            for row in wrong[:KEPT_MISTAKES]
        ]
        right = len(asked) - len(wrong)
        counts = {"right": right, "asked": len(asked), "mistakes": mistakes, "accuracy": right / len(asked)}
        rows.append({"task": task, "question": TASKS[task].question} | counts)
    return rows


def markdown(rows: list[dict]) -> str:
    """The rows as a table."""
    lines = ["| task | question | accuracy | questions |", "|---|---|---:|---:|"]
    lines += [f"| {row['task']} | {row['question']} | {row['accuracy']:.1%} | {row['asked']} |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a checkpoint")
    parser.add_argument("--output", type=Path, help="folder to write to; the checkpoint's own by default")
    parser.add_argument("--samples", type=int, default=500, help="questions of each task")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = args.output or args.model
    folder.mkdir(parents=True, exist_ok=True)
    rows = task_rows(neo.evaluate(args.model, "synthetic", number=args.samples, max_new_tokens=160))
    (folder / "accuracy.json").write_text(json.dumps({"split": "test", "seed": 0, "tasks": rows}, indent=2) + "\n")
    (folder / "accuracy.md").write_text(markdown(rows))
    print(markdown(rows))


if __name__ == "__main__":
    main()
