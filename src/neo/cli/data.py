"""`neo data index`, `check`, `stats`, `preview` and `convert`: looking at data before learning from it."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from neo.cli.console import make_parser, quiet_transformers, say, track
from neo.cli.data_inputs import DRAWN, Inputs, load_processor, open_inputs


def data_parser() -> ArgumentParser:
    return make_parser(
        "data",
        "Look at data before learning from it. Each tool takes a file of records, a folder or pattern of such\n"
        "files, or a recipe, of which it takes data.sources.\n\n"
        "  neo data check training.jsonl --max-seq-length 4096\n"
        "  neo data stats training.jsonl --output stats\n"
        "  neo data preview recipes/demo_sft.yaml --output preview.html\n"
        "  neo data convert training.json training.tar\n"
        "  neo data index training.jsonl --output training.index",
        "TOOL ...",
    )


def add_tools(parser: ArgumentParser) -> Any:
    """Give `data_parser()` its tools, and return the action that holds them; it must be a subcommand already."""
    tools = parser.add_subcommands(required=True, dest="tool", metavar="TOOL")
    for name, (make, _, about) in TOOLS.items():
        tools.add_subcommand(name, make(), help=about)
    return tools


def data(options: Namespace) -> int:
    """`neo data`"""
    quiet_transformers()
    _, run, _ = TOOLS[options.tool]
    return run(options[options.tool])


def _parser(name: str, description: str, usage: str = "[options] SOURCE") -> ArgumentParser:
    parser = make_parser(f"data {name}", description, usage)
    parser.add_argument("source", metavar="SOURCE", help="file of records, folder, pattern (in quotes) or recipe")
    parser.add_argument("--kind", help="what the files are, where their endings do not tell: json, parquet, text ...")
    parser.add_argument("--image-root", help="folder that picture paths are relative to; by default the file's own")
    return parser


def _add_model(parser: ArgumentParser) -> None:
    parser.add_argument("--model", help="whose tokenizer and picture sizes; a recipe's if it is here, else neo-demo")
    parser.add_argument("--download", action="store_true", help="fetch the model from the Hugging Face hub")


def _add_number(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--number",
        type=int,
        help=f"records of each source, chosen by chance; all unless given, {DRAWN} of one that is drawn",
    )
    parser.add_argument("--seed", type=int, default=0, help="which records --number chooses")


def _add_workers(parser: ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, help="processes; one for each core unless given, 0 for none")


# The tools' options.


def _index_parser() -> ArgumentParser:
    parser = _parser(
        "index",
        "Measure every record once, so that a run need not: lengths and picture sizes into tables on disk. Of\n"
        "pictures only the heads are read. Goes on where it was interrupted, and leaves a fresh index alone.\n\n"
        "  neo data index training.jsonl --output training.index\n"
        "  neo data index recipe.yaml",
    )
    parser.add_argument("--output", help="folder to write; a recipe's data.index, with a folder in it for each source")
    _add_model(parser)
    _add_workers(parser)
    return parser


def _check_parser() -> ArgumentParser:
    parser = _parser(
        "check",
        "Read every record and decode every picture; tell what is wrong and where. Exit code 1 if something is.\n\n"
        "  neo data check training.jsonl --max-seq-length 4096",
    )
    parser.add_argument(
        "--max-seq-length", type=int, help="tokens above which a record is too long; a recipe has its own"
    )
    parser.add_argument("--examples", type=int, default=3, help="how many of each kind are named")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    _add_number(parser)
    _add_model(parser)
    _add_workers(parser)
    return parser


def _stats_parser() -> ArgumentParser:
    parser = _parser(
        "stats",
        "Count tokens, pictures, turns and families, by source. Of pictures only the heads are read.\n\n"
        "  neo data stats training.jsonl --output stats",
    )
    parser.add_argument("--output", help="folder for stats.json and stats.png")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    _add_number(parser)
    _add_model(parser)
    _add_workers(parser)
    return parser


def _preview_parser() -> ArgumentParser:
    parser = _parser(
        "preview",
        "A page of what the model will really see: pictures after resizing, their tokens, the text's tokens,\n"
        "and which ones it learns. One file, to be opened in a browser; it needs no network.\n\n"
        "  neo data preview training.jsonl --output preview.html --number 50",
    )
    parser.add_argument("--output", default="preview.html", help="file to write")
    parser.add_argument("--number", type=int, default=24, help="records in all")
    parser.add_argument("--seed", type=int, default=0, help="which ones")
    parser.add_argument("--max-seq-length", type=int, help="mark records with more tokens; a recipe has its own")
    _add_model(parser)
    return parser


def _convert_parser() -> ArgumentParser:
    parser = _parser(
        "convert",
        "Write records in another form; the ending of OUTPUT says which: .json (LLaVA), .jsonl (messages), .parquet\n"
        "or .tar (WebDataset), both with the pictures inside. The conversations are the same in each.\n\n"
        "  neo data convert training.json training.parquet",
        "[options] SOURCE OUTPUT",
    )
    parser.add_argument("output", metavar="OUTPUT", help="file to write; it appears when it is whole")
    parser.add_argument("--overwrite", action="store_true", help="put it in the place of a file that is there already")
    parser.add_argument("--skip-bad", action="store_true", help="leave out, and name, records that cannot be read")
    _add_number(parser)
    return parser


# What they do.


def _index(options: Namespace) -> int:
    from neo.data.index import build_index, index_folder

    workers = _workers(options)
    inputs = open_inputs(options, index=True, workers=workers)
    recipe = inputs.recipe
    processor, _ = load_processor(inputs, options, exact=True)
    for (name, config), source in zip(inputs.configs.items(), inputs.sources, strict=True):
        if config.path is None:
            continue
        folder = index_folder(recipe.data, name) if recipe else Path(options.output).expanduser()
        index = build_index(source, processor, folder, workers, sys.stderr.isatty())
        mean, problems = index.mean_tokens, index.about["problems"]
        say(
            f"{folder}: {len(index):,} records, {mean:,.0f} tokens on average, {problems:,} that cannot be learned from"
        )
    return 0


def _check(options: Namespace) -> int:
    from neo.data.tools.check import check

    inputs = open_inputs(options)
    indices = inputs.chosen(options.number, options.seed)
    processor, _ = load_processor(inputs, options)
    longest = _max_seq_length(options, inputs)
    workers = _workers(options)
    report = check(inputs.sources, processor, longest, options.examples, indices, workers, track("checking"))
    if options.json:
        say(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        rows = [(kind, f"{count:,}") for kind, count in report.wrong.items()]
        _show(f"{report.records:,} records", ("problem", "records"), rows)
        for kind, examples in report.examples.items():
            lines = [f"\n{kind}:", *(f"  {_printable(example.message)}" for example in examples)]
            say("\n".join(lines) + "\n" if examples else "", end="")
    return 1 if any(report.wrong.values()) else 0


def _stats(options: Namespace) -> int:
    from neo.data.tools.stats import stats, write

    inputs = open_inputs(options)
    indices = inputs.chosen(options.number, options.seed)
    processor, model = load_processor(inputs, options)
    found = stats(inputs.sources, processor, indices, _workers(options), track("measuring"))
    report = found.to_dict()
    if options.output:
        images = processor.image_processor
        title = f"{options.source} ({report['all']['records']:,} records, measured with {model})"
        write(found, Path(options.output).expanduser(), title, (images.min_pixels, images.max_pixels))
    if options.json:
        say(json.dumps(report, ensure_ascii=False))
        return 0
    columns = ("", "records", "tokens", "mean", "median", "p99", "max", "learned", "of pictures", "pictures")
    groups = [
        *report["sources"].items(),
        *(("family " + name, one) for name, one in report["families"].items() if name),
    ]
    rows = [(_printable(name), *_cells(one)) for name, one in [*groups, ("all", report["all"])]]
    _show(f"tokens measured with {model}", columns, rows)
    if found.unreadable:
        say(f"{found.unreadable:,} records cannot be read; the first: {_printable(found.first_unreadable)}")
    return 0


def _preview(options: Namespace) -> int:
    from neo.data.tools.preview import preview

    if options.number < 1:
        raise ValueError(f"--number must be at least 1, not {options.number}")
    output = Path(options.output).expanduser()
    if not output.parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.parent} to write into")
    inputs = open_inputs(options)
    processor, model = load_processor(inputs, options)
    page = preview(
        inputs.sources,
        processor,
        f"{options.source}, as {model} sees it",
        options.number,
        options.seed,
        _max_seq_length(options, inputs),
        track("drawing"),
    )
    output.write_text(page, encoding="utf-8")
    say(str(output))
    return 0


def _convert(options: Namespace) -> int:
    from neo.data.tools.convert import convert

    inputs = open_inputs(options)
    written, left_out = convert(
        inputs.sources,
        options.output,
        options.overwrite,
        options.skip_bad,
        inputs.chosen(options.number, options.seed),
        track("converting"),
    )
    say(f"{options.output}: {written:,} records" + (f", {left_out:,} left out" if left_out else ""))
    return 0


TOOLS: dict[str, tuple[Callable[[], ArgumentParser], Callable[[Namespace], int], str]] = {
    "index": (_index_parser, _index, "measure every record once, for fast starts"),
    "check": (_check_parser, _check, "what is wrong, and where"),
    "stats": (_stats_parser, _stats, "lengths, pictures, turns, families"),
    "preview": (_preview_parser, _preview, "a page of what the model will see"),
    "convert": (_convert_parser, _convert, "to LLaVA JSON, JSONL, Parquet or WebDataset"),
}


MISSING = {
    **{f"data.{name}.source": f"neo data {name} needs a source: a file of records or a recipe" for name in TOOLS},
    "data.convert.output": "neo data convert needs an output: .json, .jsonl, .parquet or .tar",
}
"""What the parser calls an argument that is missing, and what people are told."""


def _max_seq_length(options: Namespace, inputs: Inputs) -> int | None:
    return options.max_seq_length or (inputs.recipe.data.max_seq_length if inputs.recipe else None)


def _workers(options: Namespace) -> int:
    """Processes to start; where there is one core they would only cost."""
    if options.workers is not None:
        if options.workers < 0:
            raise ValueError(f"--workers must be at least 0, not {options.workers}")
        return options.workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if cores > 1 else 0


def _show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; words left, numbers right. A pipe gets it uncut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _cells(summary: dict[str, Any]) -> list[str]:
    """A row of numbers of some records."""
    tokens = summary["tokens"]
    lengths = [f"{tokens[name]:,.0f}" for name in ("sum", "mean", "median", "p99", "max")]
    shares = [f"{summary[name] / tokens['sum']:.0%}" for name in ("learned", "picture_tokens")]
    return [f"{summary['records']:,}", *lengths, *shares, f"{summary['pictures']:,}"]


def _printable(text: str) -> str:
    """Words of anybody's for the terminal, which would obey some of their characters."""
    return "".join(one if one.isprintable() else "�" for one in " ".join(text.split()))
