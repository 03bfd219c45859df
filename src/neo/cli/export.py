"""`neo export`."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from neo.cli.console import make_parser, quiet_transformers, say


def export_parser() -> ArgumentParser:
    parser = make_parser(
        "export",
        "Write a model that stands by itself: an adapter merged into its model, another dtype, or\n"
        "weights in fewer bits, which take less memory and are read by neo alone. Or make a model of\n"
        "a checkpoint on the way of a training run, which may be better than its end.\n\n"
        "  neo export --model neo-demo --adapter finetuned --output merged\n"
        "  neo export --model NEO-2B-SFT --dtype fp32 --output NEO-2B-fp32\n"
        "  neo export --model NEO-2B-SFT --quantization int4 --output NEO-2B-int4\n"
        "  neo export --model runs/mine/checkpoints/step-000500 --output mine",
    )
    parser.add_argument("--model", required=True, help="as in neo ask, or a checkpoint's folder")
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
    if (Path(options.model).expanduser() / "state.json").is_file():
        return _export_checkpoint(options, any(how))
    say(str(export(options.model, options.output, *how)))
    return 0


def _export_checkpoint(options: Namespace, changed: bool) -> int:
    from neo.training.start import export_checkpoint

    if changed:
        raise ValueError(
            f"{options.model}: a checkpoint on the way of a run; make a model of it first, with --output alone, and "
            "export that"
        )
    say(str(export_checkpoint(Path(options.model).expanduser(), options.output)))
    return 0
