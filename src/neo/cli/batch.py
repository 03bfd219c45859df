"""`neo batch`."""

import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from neo.cli.answers import add_answer_options, add_form_options, form, sampling
from neo.cli.console import make_parser, say, track
from neo.cli.model import add_engine_options, load_with_engine

if TYPE_CHECKING:
    from neo.inference.batch import Task

LINE_SECONDS = 30
"""How often a line says how far it is, where there is no terminal to draw a bar on."""


def batch_parser() -> ArgumentParser:
    parser = make_parser(
        "batch",
        "Answer every record of a file, or one question about every picture of a folder, and write the answers to a\n"
        "file. Given again after an interruption it goes on where it was. Exit code 1 if a record\n"
        "could not be answered: its row says why.\n\n"
        "  neo batch --data photos --question 'What is this?' --output answers.jsonl\n"
        "  neo batch --data in.parquet --output out.parquet --model NEO-2B-SFT --workers 8",
        "[options]",
    )
    add = parser.add_argument
    add("--data", required=True, help="records (.parquet, .jsonl, .json, .csv, .tar), a folder of them, or of pictures")
    add("--output", required=True, help="file to write, .jsonl or .parquet; it appears when it is whole")
    add("--question", help="asked about the pictures of every record, in place of what it asks itself")
    add("--kind", help="what the files are, where endings do not tell: json, parquet, csv, webdataset, pictures ...")
    add("--image-root", help="folder that picture paths are relative to; by default the file's own")
    add("--workers", type=int, default=0, help="processes on Ray with a model each; 0 for this one alone")
    add_answer_options(parser)
    add_form_options(parser)
    add_engine_options(parser)
    return parser


def batch(options: Namespace) -> int:
    """`neo batch`"""
    from neo.data.questions import Questions
    from neo.inference.batch import Task
    from neo.inference.batch_file import BatchFile
    from neo.model import names

    if options.workers < 0:
        raise ValueError(f"--workers must be at least 0, not {options.workers}")
    if options.temperature and options.seed is None:
        options.seed = 0  # an interrupted run must come to the answers of one that was not
    questions = Questions(options.data, options.question, options.kind, options.image_root)
    asked = {**sampling(options), **form(options), "tile": options.tile}
    if not options.download:
        names.resolve(options.model, download=False)  # a slip of the name is told before anything is written
    about = {
        "data": questions.fingerprint,
        "question": options.question,
        "model": [options.model, options.adapter, options.dtype, options.quantization],
        "options": asked,
        "system": options.system,
    }
    with BatchFile(options.output, about) as file:
        records = range(file.done, len(questions))
        rows = _answered(options, Task(questions, asked, options.system), records)
        for row in _shown(rows, file.done, len(questions)):
            file.add(row)
        failed = [row for row in file.rows() if row["error"] is not None]
        file.finish()
    say(f"{options.output}: {len(questions):,} records" + (f", {len(failed):,} not answered" if failed else ""))
    if failed:
        say(f"the first of these, record {failed[0]['record']} (from 0): {failed[0]['error']}")
    return 1 if failed else 0


def _answered(options: Namespace, task: "Task", records: range) -> Iterator[dict[str, Any]]:
    """A row for each record, by this process or by others."""
    if not records:
        return iter(())
    load = partial(load_with_engine, options)
    if not options.workers:
        from neo.inference.batch import answer

        return answer(load(), task, records)
    from neo.inference.batch_ray import answer_on_ray

    return answer_on_ray(load, task, records, options.workers, options.max_batch, options.device)


def _shown(rows: Iterable[dict[str, Any]], done: int, total: int) -> Iterator[dict[str, Any]]:
    """The rows; how far they are is told on stderr."""
    if sys.stderr.isatty():
        yield from track("answering", done)(rows, total)
        return
    began = told = time.monotonic()
    for number, row in enumerate(rows, 1):
        yield row
        if (now := time.monotonic()) - told >= LINE_SECONDS:
            told, left = now, (total - done - number) * (now - began) / number
            sys.stderr.write(f"{done + number:,} of {total:,} records, {left / 60:,.0f} minutes left\n")
