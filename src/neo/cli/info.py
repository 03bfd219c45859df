"""`neo info` and `neo init`."""

import json

from jsonargparse import ArgumentParser, Namespace

from neo.cli.console import make_parser, quiet_transformers, say


def info_parser() -> ArgumentParser:
    parser = make_parser(
        "info",
        "What a model is and costs: parameters by part, context, picture sizes, cache, arithmetic, memory, and in\n"
        "which ways it fits into the memory that is free here; of a model on this machine also what it can and\n"
        "cannot do.\n\n"
        "  neo info\n"
        "  neo info --preset 2b",
        "[options] [MODEL]",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="as in neo ask; neo-demo unless given")
    parser.add_argument("--preset", help="a size instead of a model: demo, 2b or 9b")
    parser.add_argument("--json", action="store_true", help="one JSON object, in bytes and single operations")
    parser.add_argument("--download", action="store_true", help="fetch the model from the Hugging Face hub")
    return parser


def init_parser() -> ArgumentParser:
    parser = make_parser(
        "init",
        "Grow a NEO, still to be trained, from a Qwen3 language model.\n\n"
        "  neo init --llm Qwen3-1.7B-Base --pre-buffer-layers 12 --output neo-2b",
    )
    parser.add_argument("--llm", required=True, help="folder of the language model")
    parser.add_argument("--pre-buffer-layers", type=int, required=True, help="fresh layers to put in front")
    parser.add_argument("--output", required=True, help="folder to write, new or empty")
    parser.add_argument("--dtype", help="fp32, bf16 or fp16; the language model's unless given")
    parser.add_argument("--seed", type=int, default=0, help="seed of the fresh weights")
    return parser


def info(options: Namespace) -> int:
    """`neo info`"""
    from neo.inference.describe import describe, describe_preset, report

    if options.preset and options.model:
        raise ValueError(f"give either the model {options.model} or --preset {options.preset}, not both")
    quiet_transformers()
    facts = (
        describe_preset(options.preset) if options.preset else describe(options.model or "neo-demo", options.download)
    )
    say(json.dumps(facts, ensure_ascii=False, indent=2) if options.json else report(facts))
    return 0


def init(options: Namespace) -> int:
    """`neo init`"""
    from neo.training.grow import grow_folder

    quiet_transformers()
    output = grow_folder(options.llm, options.pre_buffer_layers, options.output, options.dtype, options.seed)
    say(str(output))
    return 0
