"""`neo export`."""

from jsonargparse import ArgumentParser, Namespace

from neo.cli.console import make_parser, quiet_transformers, say


def export_parser() -> ArgumentParser:
    parser = make_parser(
        "export",
        "Write a model that stands by itself: an adapter merged into its model, another dtype, or\n"
        "weights in fewer bits, which take less memory and are read by neo alone.\n\n"
        "  neo export --model neo-demo --adapter finetuned --output merged\n"
        "  neo export --model NEO-2B-SFT --dtype fp32 --output NEO-2B-fp32\n"
        "  neo export --model NEO-2B-SFT --quantization int4 --output NEO-2B-int4",
    )
    parser.add_argument("--model", required=True, help="as in neo ask")
    parser.add_argument("--adapter", metavar="FOLDER", help="a LoRA adapter that was trained on the model")
    parser.add_argument("--output", required=True, help="folder to write, new or empty")
    parser.add_argument("--dtype", help="fp32, bf16 or fp16; the model's own unless given")
    parser.add_argument("--quantization", help="int8 or int4")
    parser.add_argument("--download", action="store_true", help="fetch the model from the Hugging Face hub")
    return parser


def export(options: Namespace) -> int:
    """`neo export`"""
    from neo.inference.export import export

    quiet_transformers()
    how = (options.adapter, options.dtype, options.download, options.quantization)
    say(str(export(options.model, options.output, *how)))
    return 0
