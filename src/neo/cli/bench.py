"""`neo bench`."""

import json

from jsonargparse import ArgumentParser, Namespace

from neo.cli.console import make_parser, say
from neo.cli.model import add_load_options, load


def bench_parser() -> ArgumentParser:
    parser = make_parser(
        "bench",
        "How fast a model answers on this machine: time to the first token, tokens per second, memory, and the\n"
        "share of what reading the weights and multiplying alone would allow, whose speeds are measured first.\n\n"
        "  neo bench --model NEO-2B-SFT --batch-size 1,4,16 --image-size 512 --new-tokens 64\n"
        "  neo bench --dtype bf16 --image-size 0 --json",
        "[options]",
    )
    add_load_options(parser)
    add = parser.add_argument
    add("--batch-size", type=str, default="1,4,16", metavar="N,N", help="requests at the same time, a row each")
    add("--image-size", type=int, default=512, help="pixels of a side of the picture in each request; 0 for none")
    add("--new-tokens", type=int, default=64, help="tokens of each answer that are timed")
    add("--repeats", type=int, default=3, help="times that each row is measured, after a warm-up")
    add("--json", action="store_true", help="one JSON object, in seconds and bytes")
    return parser


def bench(options: Namespace) -> int:
    """`neo bench`"""
    from neo.inference.bench import bench, report

    try:
        batches = [int(number) for number in options.batch_size.split(",")]
    except ValueError as error:
        raise ValueError(f"--batch-size {options.batch_size} must be whole numbers with commas between them") from error
    facts = bench(load(options), batches, options.image_size, options.new_tokens, options.repeats)
    say(json.dumps(facts, ensure_ascii=False, indent=2) if options.json else report(facts))
    return 0
