"""Asking a model a test set: `neo.evaluate`, and `neo eval` on the command line.

neo.evaluate(model="neo-demo", test_data="test.jsonl", metrics=["accuracy", "latency"], output="out")

Answers are written to OUTPUT/predictions.jsonl.part as they come, so that a run that was interrupted goes on when it is
given again. When all are there, the folder holds `predictions.jsonl`, `summary.json`, `table.md` and `report.html`.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from neo.data.tools.walk import Track, untracked
from neo.evaluation.answerer import Answer, Answerer, load_answerer
from neo.evaluation.cost import Prices, api_price, cost, read_prices
from neo.evaluation.identity import checkpoint_of, name_of
from neo.evaluation.metrics import ACCURACY, MEASURES, check_names
from neo.evaluation.questions import DrawnQuestions, Question, Questions, open_questions
from neo.evaluation.report import report
from neo.evaluation.result import PREDICTIONS, REPORT, Result, read_result, write_text
from neo.evaluation.scoring import Row, score
from neo.evaluation.summary import latency, summarise
from neo.inference.batch_file import BatchFile

logger = logging.getLogger(__name__)

MAX_NEW_TOKENS = 256
BATCH_SIZE = 16


def evaluate(
    model: Any,
    test_data: Any,
    metrics: Sequence[str] = (ACCURACY,),
    output: str | Path | None = None,
    *,
    number: int | None = None,
    image_root: str | None = None,
    schema: Mapping[str, Any] | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = BATCH_SIZE,
    prices: str | Path | None = None,
    overwrite: bool = False,
    track: Track = untracked,
    **load_options: Any,
) -> Result:
    """Ask a model a test set, and measure its answers.

    Args:
        model: "neo-demo", a published name, a hub id or a folder; what `neo.load_model` returned; or another model, see
            `neo.evaluation.answerer`.
        test_data: file, folder or list of records, or "synthetic"; see `neo.evaluation.questions`.
        metrics: "accuracy" (each record's own), names of `neo.evaluation.metrics`, "latency" and "memory"; accuracy if
            none is of the answers.
        output: folder for predictions, summary and reports; without one nothing is written.
        number: questions of each family at the most.
        image_root: what relative picture paths are relative to; the folder of their file by default.
        schema: JSON schema of answers, for records without one.
        max_new_tokens: tokens of an answer at the most.
        batch_size: questions that are asked at the same time; a model of transformers answers them one by one, one
            that is loaded already as many as its engine takes. Latency is that of a question among so many.
        prices: a file of prices, for what 1 000 questions cost; see `neo.evaluation.cost`.
        overwrite: ask again what the output folder has answers to.
        track: shows the progress.
        load_options: of `neo.load_model`, for a name.

    Raises:
        ValueError: a record, picture, metric or option is not what it should be, or the folder holds answers to
            something else; the sentence says where.
    """
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    check_names(names)
    if not set(names) - set(MEASURES):
        names = [ACCURACY, *names]
    for option, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{option}={value!r} must be a whole number of at least 1")
    price_list = None if prices is None else read_prices(prices)
    questions = open_questions(test_data, image_root, number, schema)
    about: dict[str, Any] = {
        "model": name_of(model),
        "checkpoint": checkpoint_of(model, load_options.get("adapter"), load_options.get("download", False)),
        "options": {name: str(value) for name, value in load_options.items() if name != "download"},
        "questions": questions.fingerprint,
        "max_new_tokens": max_new_tokens,
        "batch_size": batch_size,
    }
    if price_list is not None:
        api_price(about["model"], price_list)  # refuses before anything is asked
    folder = None if output is None else _folder(output)
    if folder is not None and (folder / PREDICTIONS).exists() and not overwrite:
        rows = _finished(folder, about)
    else:
        _check(questions, names)
        answerer = load_answerer(model, batch_size, **({"warm_up": "latency" in names} | load_options))
        asked = partial(_ask, answerer, questions, max_new_tokens, batch_size, track)
        rows = list(asked(0)) if folder is None else _kept(folder, about, overwrite, asked)
    result = _measured(rows, questions.name, about, names, price_list)
    if folder is not None:
        write_text(folder / REPORT, report(result, questions))
        result.write(folder)
        (folder / f"{PREDICTIONS}.part").unlink(missing_ok=True)
    return result


evaluate_model = evaluate


def _measured(
    rows: list[Row], data: str, about: Mapping[str, Any], names: Sequence[str], prices: Prices | None
) -> Result:
    """The rows with their scores, and what is said of all of them."""
    scored = score(rows, names)
    for name, one in scored.items():
        for place, value in zip(one.places, one.scores.tolist(), strict=True):
            rows[place].setdefault("scores", {})[name] = value
    summary = {"model": about["model"], "data": data, "about": about} | summarise(rows, scored)
    if "latency" in names:
        summary["latency"] = latency(rows)
    if "memory" in names:
        peaks = [row["peak_memory_bytes"] for row in rows if row["peak_memory_bytes"] is not None]
        summary["memory"] = {"peak_bytes": max(peaks, default=None)}
    if prices is not None:
        summary["cost"] = cost(rows, about["model"], prices)
    return Result(summary, rows)


def _ask(
    answerer: Answerer, questions: Questions, max_new_tokens: int, batch_size: int, track: Track, done: int
) -> Iterator[Row]:
    """A row for each question from number `done` on, in order.

    Of its batch it tells `machine_seconds`, the question's share of the time that it took; `at_once`, how many
    questions were answered at the same time, this one included; and the peak of memory up to its end.
    """
    at_once = getattr(answerer, "at_once", None) or batch_size

    def rows() -> Iterator[Row]:
        for start in range(done, len(questions), batch_size):
            batch = [questions[index] for index in range(start, min(start + batch_size, len(questions)))]
            began = time.monotonic()
            try:
                answers = answerer.answer([question.messages for question in batch], max_new_tokens)
            except ValueError as error:
                raise ValueError(_with_place(str(error), batch)) from error
            measured = {
                "machine_seconds": (time.monotonic() - began) / len(batch),
                "at_once": min(len(batch), at_once),
                "peak_memory_bytes": answerer.peak_memory(),
            }
            for question, answer in zip(batch, answers, strict=True):
                yield _row(question, answer) | measured

    yield from track(rows(), len(questions) - done)


def _row(question: Question, answer: Answer) -> Row:
    """A line of predictions.jsonl, without what is measured of a batch."""
    row: Row = {
        "where": question.where,
        "family": question.family,
        "question": question.text,
        "expected": list(question.expected),
        "metric": question.metric,
        "choices": list(question.choices),
        "answer": answer.text,
        "seconds_to_first_token": answer.seconds_to_first_token,
        "seconds": answer.seconds,
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": answer.new_tokens,
        "complete": answer.complete,
    }
    return row if question.schema is None else row | {"schema": question.schema}


def _with_place(sentence: str, batch: Sequence[Question]) -> str:
    """The place of a question in place of its number in its batch."""
    found = re.match(r"question (\d+): ", sentence)
    return f"{batch[int(found[1]) - 1].where}: {sentence[found.end() :]}" if found else sentence


def _check(questions: Questions, names: Sequence[str]) -> None:
    """See that every record fits its metrics, before anything is asked; of drawn ones, which do, two are enough."""
    number = min(2, len(questions)) if isinstance(questions, DrawnQuestions) else len(questions)
    some = [questions[index] for index in range(number)]
    score([_row(question, Answer(question.expected[0], 0.0)) for question in some], names)


def _kept(folder: Path, about: Mapping[str, Any], overwrite: bool, asked: Callable[[int], Iterator[Row]]) -> list[Row]:
    """All rows, those that an interrupted run has left and the others, which are kept as they come."""
    with BatchFile(folder / PREDICTIONS, dict(about), overwrite) as file:
        if file.done:
            logger.info("%s: going on behind %d answers that are there", folder, file.done)
        for row in asked(file.done):
            file.add(row)
        return list(file.rows())


def _folder(output: str | Path) -> Path:
    """The folder to write to, made where it is missing."""
    folder = Path(output).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder}: there can be no such folder ({error.strerror}); give another output") from error
    return folder


def _finished(folder: Path, about: Mapping[str, Any]) -> list[Row]:
    """The answers of a folder, if they are those that are asked for."""
    before = read_result(folder)
    if differing := [name for name in about if before.summary["about"].get(name) != about[name]]:
        raise ValueError(
            f"{folder}: it holds answers with another {' and '.join(differing)}; "
            "give another output, or overwrite them (--overwrite)"
        )
    logger.info("%s: all %d answers are there; only metrics are computed anew", folder, len(before.rows))
    for row in before.rows:
        row.pop("scores", None)
    return before.rows
