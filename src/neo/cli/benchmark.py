"""`neo eval --benchmark` and `neo eval --table`."""

import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from neo.cli.console import quiet_transformers, say

if TYPE_CHECKING:
    from neo.evaluation.table import Measured

Results = tuple[Iterator[tuple[str, dict[str, float]]], dict[str, Any]]
"""Tasks and their scores as they come, and how they are asked."""


def add_benchmark_options(parser: ArgumentParser) -> None:
    """Those of public benchmarks (docs/benchmarks.md)."""
    add = parser.add_argument
    add("--benchmark", metavar="NAME,NAME", help="public benchmarks: DocVQA, or a harness's task as docvqa_val")
    add("--harness", default="lmms-eval", help="with --benchmark: lmms-eval or vlmevalkit")
    add("--limit", type=int, metavar="N", help="with --benchmark: the first N questions of each")
    add("--tasks", metavar="FOLDER", help="with --benchmark: task files of your own for lmms-eval")
    add(
        "--min-pixels",
        type=int,
        metavar="N",
        help="with --benchmark: least area of a picture; as published unless given",
    )
    add("--max-pixels", type=int, metavar="N", help="with --benchmark: largest area of a picture")
    add("--prompts", default="published", help="with --benchmark: published, or harness for its own words")
    add("--table", metavar="FOLDER", help="results of --benchmark beside published scores, as Markdown")


def refuse_without_benchmark(options: Namespace) -> None:
    """See that no option is given that only --benchmark has a use for."""
    for name in ("limit", "tasks", "min_pixels", "max_pixels"):
        if options[name] is not None:
            raise ValueError(f"--{name.replace('_', '-')} goes with --benchmark; --data has --number")


def run_benchmarks(options: Namespace) -> int:
    """`neo eval --benchmark`: scores into the folder of --output, and a line for each."""
    from neo.evaluation.benchmarks import benchmark, benchmarks, check_harness
    from neo.evaluation.table import Measured, write

    check_harness(options.harness)
    if not options.output:
        raise ValueError("--benchmark needs --output, the folder of results (neo eval --table FOLDER shows it)")
    if options.tasks and options.harness != "lmms-eval":
        raise ValueError("--tasks is for --harness lmms-eval")
    if options.tasks and not Path(options.tasks).is_dir():
        raise ValueError(f"--tasks {options.tasks}: there is no such folder")
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"--limit {options.limit} must be at least 1")
    if options.model.startswith(("hf:", "openai:")):
        raise ValueError(f"--benchmark asks NEOs; {options.harness} has models of its own for {options.model}")
    names = [name.strip() for name in options.benchmark.split(",") if name.strip()]
    if not names:
        raise ValueError(f"--benchmark names no benchmark; those of the paper are {', '.join(benchmarks())}")
    known = [benchmark(name, options.harness) for name in names]
    tasks = [one.task(options.harness) if one else name for one, name in zip(known, names, strict=True)]
    quiet_transformers()
    folder, stdout = Path(options.output), sys.stdout
    with redirect_stdout(sys.stderr):  # tasks print as they please
        run = _lmms_eval if options.harness == "lmms-eval" else _vlmevalkit
        results, settings = run(options, tasks, folder)
        for task, scores in results:
            questions = int(scores.pop("questions"))
            found = Measured(options.model, options.harness, task, scores, questions, options.limit, settings)
            write(found, folder)
            with redirect_stdout(stdout):
                say(_line(found))
    return 0


def _line(found: "Measured") -> str:
    score = "" if found.score is None else f"{found.score:.1f}  "
    details = ", ".join(f"{name} {value:.4g}" for name, value in found.scores.items())
    return f"{found.task}: {score}({details}; {found.questions} questions)"


def show_table(options: Namespace) -> int:
    """`neo eval --table`"""
    from neo.evaluation.table import read, table

    say(table(read(Path(options.table))).rstrip())
    return 0


def _model_options(options: Namespace) -> dict:
    given = ("adapter", "quantization", "min_pixels", "max_pixels")
    where = {"dtype": options.dtype, "download": options.download, "batch_size": options.batch_size}
    return where | {name: options[name] for name in given if options[name] is not None}


def _lmms_eval(options: Namespace, tasks: list[str], folder: Path) -> Results:
    try:
        from neo.evaluation.lmms_eval import Neo, run
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--harness lmms-eval needs {error.name}: pip install 'neo-vlm[lmms-eval]', "
            "then pip install --no-deps lmms-eval"
        ) from error

    model = Neo(options.model, prompts=options.prompts, device=options.device, **_model_options(options))
    own = Path(options.tasks) if options.tasks else None
    settings = {"prompts": options.prompts, "pixels": {task: model.model.bounds(task) for task in tasks}}
    return run(model, tasks, folder / "files", options.limit, own), settings


def _vlmevalkit(options: Namespace, tasks: list[str], folder: Path) -> Results:
    try:
        from neo.evaluation.vlmevalkit import Neo, judge, run
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--harness vlmevalkit needs {error.name}: install VLMEvalKit from github.com/open-compass/VLMEvalKit"
        ) from error

    model = Neo(options.model, prompts=options.prompts, device=options.device, **_model_options(options))
    pixels = {task: model.model.bounds(task) for task in tasks}
    settings = {"prompts": options.prompts, "pixels": pixels, "judge": {task: judge(task) for task in tasks}}
    return run(model, tasks, folder / "files", options.limit), settings
