"""Make docs/results.md: what neo-demo can and cannot do, before and after it is taught a new task.

python docs/results.py

It asks `--number` drawn pictures of each task that no training saw, fine-tunes on arrows as
examples/finetune_and_compare.py does, and asks all of it again. Six minutes on one core of a CPU; evaluations that were
interrupted go on. Predictions and reports of every answer stay in `--runs`.
"""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import neo
from neo.cli.console import track
from neo.evaluation.compare import compare
from neo.evaluation.questions import open_questions
from neo.evaluation.result import Result
from neo.evaluation.scoring import Row
from neo.evaluation.summary import written
from neo.synthetic.tasks import TASKS
from neo.training import train

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "examples"))
from arrows import QUESTION, records  # noqa: E402

COLUMNS = 6
"""Pictures beside one another."""
RIGHT, WRONG = "#2e7d32", "#b3261e"
FIGURES = ("figures/results.png", "figures/results_arrows.png")
PAGE = """\
# What {model} can and cannot do

Made by `python docs/results.py`: {number} questions of each task about drawn pictures that no training saw, answered
greedily; an answer is right as `match` says in [evaluation.md](evaluation.md). In brackets 95 % intervals. The last
column is the same model after it was taught a new task, below.

{table}

The median answer took {seconds} s among {together} asked at the same time; the process took {memory} MiB at most.

## Successes and failures

The first right and the first wrong answer of each task, where there is one.

![For each task a picture, the question and the model's answer, green where it is right](figures/results.png)

## A new task

"{question}" is a question that the model has never seen. It learned from {pictures} drawn arrows in {epochs} epochs
([`examples/finetune_and_compare.py`](../examples/finetune_and_compare.py)) and was asked about {others} others:

| | right |
|---|---:|
| before | {arrows_before} |
| after | {arrows_after} |

![Arrows with the answers before and after](figures/results_arrows.png)

What it knew before has changed with it: over all tasks its accuracy is {change}, see the table. Records of the old
tasks mixed among the new ones keep what it knows ([training.md](training.md)).
"""


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="neo-demo")
    parser.add_argument("--number", type=int, default=100, help="questions of each task")
    parser.add_argument("--pictures", type=int, default=400, help="arrows to learn from; half as many are asked")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--runs", type=Path, default=Path("runs/results"), help="where models and answers go")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="where results.md and figures/ go")
    args = parser.parse_args(words)
    shutil.rmtree(args.runs / "arrows", ignore_errors=True)
    before = asked(args, args.model, "before")
    taught = train(
        model=args.model,
        dataset=records(args.pictures, seed=0),
        epochs=args.epochs,
        learning_rate=5e-4,
        batch_size=8,
        output_dir=args.runs / "arrows",
    )
    after = asked(args, taught, "after")
    (args.output / "figures").mkdir(parents=True, exist_ok=True)
    questions = open_questions("synthetic", number=args.number)
    rows = before["synthetic"].rows
    gallery([Card(rows[place], questions[place].pictures) for place in shown(rows)], args.output / FIGURES[0])
    arrows = open_questions(records(args.pictures // 2, seed=1))
    both = [
        Card(result["arrows"].rows[place], arrows[place].pictures, name)
        for place in range(COLUMNS // 2)
        for name, result in (("before", before), ("after", after))
    ]
    gallery(both, args.output / FIGURES[1])
    (args.output / "results.md").write_text(page(args, before, after), encoding="utf-8")


def asked(args: argparse.Namespace, model: str | Path, name: str) -> dict[str, Result]:
    """A model's answers to the drawn tasks and about arrows."""
    tests = {"synthetic": "synthetic", "arrows": records(args.pictures // 2, seed=1)}
    results = {}
    for test, data in tests.items():
        results[test] = neo.evaluate(
            model,
            data,
            ["accuracy", "latency", "memory"],
            args.runs / f"{test}_{name}",
            number=args.number if test == "synthetic" else None,
            max_new_tokens=160,
            overwrite=name == "after",  # the model has just been trained
            track=track(f"{test}, {name}"),
        )
    return results


def page(args: argparse.Namespace, before: dict[str, Result], after: dict[str, Result]) -> str:
    """docs/results.md."""
    drawn = before["synthetic"].summary
    change = compare(args.runs / "synthetic_before", args.runs / "synthetic_after")["metrics"]["accuracy"]
    points = [f"{100 * change[name]:+.1f}" for name in ("difference", "low", "high")]
    arrows = [written("accuracy", one["arrows"].summary["metrics"]["accuracy"]["all"]) for one in (before, after)]
    return PAGE.format(
        model=args.model,
        number=args.number,
        table="\n".join(table(before["synthetic"], after["synthetic"])),
        seconds=f"{drawn['latency']['total']['p50']['value']:.2g}",
        together=drawn["latency"]["at_once"],
        memory=f"{drawn['memory']['peak_bytes'] / 2**20:.0f}",
        question=QUESTION,
        pictures=args.pictures,
        epochs=args.epochs,
        others=args.pictures // 2,
        arrows_before=arrows[0],
        arrows_after=arrows[1],
        change=f"{points[0]} points ({points[1]} to {points[2]})",
    )


def table(before: Result, after: Result) -> Iterator[str]:
    """A row for each task."""
    yield "| task | question | before | after learning arrows |"
    yield "|---|---|---:|---:|"
    one, other = (result.summary["metrics"]["accuracy"] for result in (before, after))
    for task, number in one["families"].items():
        cells = (written("accuracy", number), written("accuracy", other["families"][task]))
        yield f"| {task} | {TASKS[task].question} | {' | '.join(cells)} |"
    yield f"| all | | {written('accuracy', one['all'])} | {written('accuracy', other['all'])} |"


def shown(rows: list[Row]) -> Iterator[int]:
    """Of each task the places of the first answer that is right and the first that is wrong."""
    for task in dict.fromkeys(row["family"] for row in rows):
        for right in (True, False):
            places = (n for n, row in enumerate(rows) if row["family"] == task and is_right(row) == right)
            yield from islice(places, 1)


def is_right(row: Row) -> bool:
    return row["scores"]["accuracy"] == 1


class Card(NamedTuple):
    """An answer as it is drawn."""

    row: Row
    pictures: list[Image.Image]
    title: str = ""


def gallery(cards: list[Card], path: Path) -> None:
    """Pictures with question and answer, beside and below one another."""
    lines = -(-len(cards) // COLUMNS)
    figure = Figure(figsize=(2.3 * COLUMNS, 3.6 * lines))
    grid = figure.subplots(lines, COLUMNS, squeeze=False)
    inches = 3.6 * lines
    figure.subplots_adjust(0.01, 1.0 / inches, 0.99, 1 - 0.5 / inches, wspace=0.15, hspace=0.65)
    for number, axes in enumerate(grid.flat):
        axes.axis("off")
        if number < len(cards):
            draw(axes, cards[number])
    figure.savefig(path, dpi=75, pil_kwargs={"optimize": True})


def draw(axes: Axes, card: Card) -> None:
    row = card.row
    for picture in card.pictures:
        axes.imshow(picture)
    if not card.pictures:
        axes.text(0.5, 0.5, "(no picture)", fontsize=10, color="gray", ha="center")
    title = f"{card.title}: {row['question']}" if card.title else row["question"]
    axes.set_title(wrapped(title), fontsize=10)
    expected = [] if is_right(row) else [wrapped(f"expected: {row['expected'][0]}")]
    said = "\n".join([*expected, wrapped(f"answer: {row['answer']}")])
    color = RIGHT if is_right(row) else WRONG
    axes.text(0.5, -0.03, said, fontsize=9, color=color, ha="center", va="top", transform=axes.transAxes)


def wrapped(text: str) -> str:
    """Text that fits below a picture; what is long is cut."""
    return "\n".join(textwrap.wrap(text, 30, max_lines=3, placeholder=" …")).replace("$", r"\$")


if __name__ == "__main__":
    main()
