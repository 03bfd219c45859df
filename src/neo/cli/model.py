"""The model of a command: the options that name it, and loading it."""

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from neo.cli.console import quiet_transformers

if TYPE_CHECKING:
    from neo.inference.chat import ChatModel


def add_load_options(parser: ArgumentParser) -> None:
    """Those of `neo.load_model`."""
    add = parser.add_argument
    add("--model", default="neo-demo", help="neo-demo, NEO-2B-SFT and the like, a hub id or a folder")
    add("--adapter", metavar="FOLDER", help="a LoRA adapter that was trained on the model")
    add("--dtype", default="auto", help="fp32, bf16, fp16, or auto: the checkpoint's")
    add("--quantization", help="int8 or int4: weights in so many bits")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto: the best there is")
    add("--download", action="store_true", help="fetch the model from the Hugging Face hub if it is not here")


def add_engine_options(parser: ArgumentParser) -> None:
    """Those of the engine, for `load_with_engine`."""
    parser.add_argument("--max-batch", type=int, default=16, help="answers made at the same time")
    parser.add_argument(
        "--cache-memory", type=int, metavar="BYTES", help="for keys and values; 40 percent of what is free unless given"
    )


def load_with_engine(options: Namespace) -> "ChatModel":
    """The model with an engine as the options want it.

    Raises:
        ValueError: as `neo.load_model` and `Engine`.
    """
    from neo.inference.engine import Engine

    model = load(options)
    model.engine = Engine(model.model, model.processor, cache_memory=options.cache_memory, max_batch=options.max_batch)
    return model


def load(options: Namespace) -> "ChatModel":
    """The model that the options name.

    Raises:
        ValueError: as `neo.load_model`.
    """
    from neo.inference.loading import load_model

    quiet_transformers()
    where = {"device": options.device, "download": options.download, "adapter": options.adapter}
    return load_model(options.model, dtype=options.dtype, quantization=options.quantization, **where)
