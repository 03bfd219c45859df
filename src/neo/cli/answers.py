"""Options of the commands that answer: which model, how tokens are chosen, what form an answer has."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from neo.cli.model import add_load_options


def add_answer_options(parser: ArgumentParser) -> None:
    """The model's, and those of `sampling`."""
    add_load_options(parser)
    add = parser.add_argument
    add("--max-new-tokens", type=int, help="most tokens of an answer; 512 unless given")
    add(
        "--temperature",
        type=float,
        default=0.0,
        help="0: always the likeliest token; 1: the model's own spread",
    )
    add("--top-p", type=float, default=1.0, help="sample among the likeliest tokens that together reach this")
    add("--top-k", type=int, help="sample among so many likeliest tokens")
    add("--seed", type=int, help="same seed, same answer at a temperature above 0")
    add("--system", help="system prompt")
    add("--tile", action="store_true", help="cut very large pictures into tiles: up to 7 times the tokens")


def sampling(options: Namespace) -> dict[str, Any]:
    """Those about single tokens, as `ChatModel` takes them."""
    names = ("max_new_tokens", "temperature", "top_p", "top_k", "seed")
    return {name: options[name] for name in names}


def add_form_options(parser: ArgumentParser) -> None:
    """Those of `form`."""
    parser.add_argument("--json-schema", metavar="FILE", help="the answer is JSON that is valid by this schema")
    parser.add_argument("--regex", help="the answer is text that this regular expression matches")
    parser.add_argument("--choices", metavar="A,B", help="the answer is one of these")


def form(options: Namespace) -> dict[str, Any]:
    """What the answer must look like, as `ChatModel` takes it.

    Raises:
        ValueError: the schema cannot be read.
    """
    held: dict[str, Any] = {"regex": options.regex}
    if options.json_schema is not None:
        try:
            held["json_schema"] = Path(options.json_schema).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--json-schema {options.json_schema}: cannot read the schema ({error})") from error
    if options.choices is not None:
        held["choices"] = [choice.strip() for choice in options.choices.split(",")]
    return held
