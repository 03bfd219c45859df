"""`neo eval`."""

import json
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from neo.cli.benchmark import add_benchmark_options, refuse_without_benchmark, run_benchmarks, show_table
from neo.cli.console import make_parser, quiet_transformers, say, track
from neo.cli.model import add_load_options


def eval_parser() -> ArgumentParser:
    parser = make_parser(
        "eval",
        "How good a model is on a test set: metrics with their intervals, a report of every answer, costs.\n"
        "Records are those of training, whose last answer is the expected one, or rows with question and answer.\n\n"
        "  neo eval --data test.jsonl --metrics accuracy,latency,memory --output out\n"
        "  neo eval --model NEO-2B-SFT --data synthetic --number 50\n"
        "  neo eval --compare out/before out/after\n"
        "  neo eval --cost prices.yaml --bench bench.json --output cost\n"
        "  neo eval --benchmark DocVQA,ChartQA --harness lmms-eval --model NEO-2B-SFT --output results\n"
        "  neo eval --table results",
        "[options]",
    )
    add_load_options(parser)
    add = parser.add_argument
    add("--data", help="file of records, folder, pattern (in quotes), or synthetic: drawn pictures")
    add("--metrics", default="accuracy", help="accuracy (each record's own), latency, memory, and names of metrics")
    add("--output", metavar="FOLDER", help="folder for predictions, summary, table and report")
    add(
        "--number", type=int, help="questions of each family, chosen by chance; all unless given, 100 of each drawn one"
    )
    add("--image-root", help="folder that picture paths are relative to; by default the file's own")
    add("--json-schema", metavar="FILE", help="JSON schema of the answers, for metric json")
    add("--max-new-tokens", type=int, default=256, help="tokens of an answer at the most")
    add("--batch-size", type=int, default=16, help="questions asked at the same time; 1 for the latency of one alone")
    add("--overwrite", action="store_true", help="ask again what the output folder has answers to")
    add("--compare", nargs=2, metavar=("A", "B"), help="output folders of the same questions: what B changes")
    add("--cost", metavar="FILE", help="prices, as examples/prices.yaml: what 1 000 questions cost")
    add("--bench", metavar="FILE", help="with --cost: what neo bench --json printed, for the page of costs")
    add("--json", action="store_true", help="one JSON object")
    add_benchmark_options(parser)
    return parser


def evaluate(options: Namespace) -> int:
    """`neo eval`"""
    if options.table:
        return show_table(options)
    if options.benchmark:
        return run_benchmarks(options)
    if options.compare:
        _refuse_others(options, "compare", "json")
        return _compare(options)
    if options.bench:
        _refuse_others(options, "bench", "cost", "output", "json")
        return _costs(options)
    refuse_without_benchmark(options)
    if not options.data:
        raise ValueError("neo eval needs --data, a file of records with the expected answers")
    from neo.evaluation.result import REPORT
    from neo.evaluation.runner import evaluate

    quiet_transformers()
    where = {"device": options.device, "download": options.download, "dtype": options.dtype}
    given: dict[str, Any] = {name: options[name] for name in ("adapter", "quantization") if options[name] is not None}
    result = evaluate(
        options.model,
        options.data,
        [name.strip() for name in options.metrics.split(",") if name.strip()],
        options.output,
        number=options.number,
        image_root=options.image_root,
        schema=None if options.json_schema is None else _schema(options.json_schema),
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
        prices=options.cost,
        overwrite=options.overwrite,
        track=track("asking"),
        **where,
        **given,
    )
    say(json.dumps(result.summary, ensure_ascii=False) if options.json else str(result).rstrip())
    if options.output and not options.json:
        say(f"\nReport: {Path(options.output) / REPORT}")
    return 0


def _refuse_others(options: Namespace, *used: str) -> None:
    """See that nothing else is given than what is used by the first of these options, it and the others."""
    for name, value in vars(eval_parser().get_defaults()).items():
        if name not in used and options[name] != value:
            raise ValueError(f"--{name.replace('_', '-')} is not for --{used[0]}; leave it out")


def _compare(options: Namespace) -> int:
    from neo.evaluation.compare import compare, comparison_table

    found = compare(*options.compare)
    say(json.dumps(found, ensure_ascii=False) if options.json else comparison_table(found).rstrip())
    return 0


def _costs(options: Namespace) -> int:
    from neo.evaluation.cost import cost_table, write_costs

    if not options.cost or not options.output:
        raise ValueError("--bench needs --cost, a file of prices, and --output, the folder for the page of costs")
    costs = write_costs(options.bench, options.cost, options.output)
    say(json.dumps(costs, ensure_ascii=False) if options.json else cost_table(costs).rstrip())
    return 0


def _schema(path: str) -> dict[str, Any]:
    try:
        return json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"--json-schema {path}: cannot read the schema ({error})") from error
