"""`neo export`."""

from jsonargparse import ArgumentParser, Namespace

from neo.cli.console import make_parser, quiet_transformers, say


def export_parser() -> ArgumentParser:
    parser = make_parser(
        "export",
        "Write a model that stands by itself: an adapter merged into its model, or another dtype.\n\n"
        "  neo export --model neo-demo --adapter finetuned --output merged\n"
        "  neo export --model NEO-2B-SFT --dtype fp32 --output NEO-2B-fp32",
    )
    parser.add_argument("--model", required=True, help="as in neo ask")
    parser.add_argument("--adapter", metavar="FOLDER", help="a LoRA adapter that was trained on the model")
    parser.add_argument("--output", required=True, help="folder to write, new or empty")
    parser.add_argument("--dtype", help="fp32, bf16 or fp16; the model's own unless given")
    parser.add_argument("--download", action="store_true", help="fetch the model from the Hugging Face hub")
    return parser


def export(options: Namespace) -> int:
    """`neo export`"""
    from neo.inference.export import export

    quiet_transformers()
    say(str(export(options.model, options.output, options.adapter, options.dtype, options.download)))
    return 0
