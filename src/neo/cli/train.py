"""`neo train`."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from neo.cli.console import make_parser, quiet_transformers, say
from neo.suggestion import nearest

logger = logging.getLogger(__name__)

OPTIONS = {
    "--model": ("model", str, "what to fine-tune: neo-demo, NEO-2B-SFT and the like, a hub id or a folder"),
    "--data": ("dataset", str, "its records: JSON, JSONL, Parquet, tar, CSV, or a folder; several times for several"),
    "--epochs": ("epochs", int, "how often each record is learned from; 3 unless given"),
    "--learning-rate": ("learning_rate", float, "the highest of the run; 5e-5 unless given"),
    "--batch-size": ("batch_size", int, "records of a step; 4 unless given"),
    "--output": ("output_dir", str, "folder to write; finetuned unless given"),
    "--max-steps": ("max_steps", int, "steps in all, in place of --epochs: fewer or more than they have"),
    "--save-steps": ("save_steps", int, "steps between checkpoints; 50 unless given"),
}
"""Options without a recipe: the argument of `neo.training.train` that each is, its type, and what it says."""
DOWNLOAD, DRY_RUN, GPUS = "--download", "--dry-run", "--gpus"
NUMBERS = {int: "a whole number", float: "a number"}


def train_parser() -> ArgumentParser:
    parser = make_parser(
        "train",
        "Fine-tune a model on records, or run a recipe. The same command goes on with a run that was stopped.\n\n"
        "  neo train --model neo-demo --data training.json --epochs 3 --learning-rate 5e-5 --batch-size 4\n"
        "  neo train --model neo-demo --data training.json --lora.rank 16 --output adapter\n"
        "  neo train recipes/demo_sft.yaml --steps 100 --optimizer.learning_rate 1e-4\n\n"
        "Either way any field of a recipe can be set by its dotted name: --stage pt, --data.max_seq_length 2048,\n"
        "--device cpu, --lora.quantize nf4; docs/training.md explains them.",
        "[RECIPE.yaml | --model MODEL --data FILE] [--name value ...]",
    )
    parser.add_argument("recipe", nargs="?", metavar="RECIPE.yaml", help="what to train, on what, and how")
    for name, (_, kind, said) in OPTIONS.items():
        parser.add_argument(name, type=kind, help=said)
    parser.add_argument(DOWNLOAD, action="store_true", help="fetch a model that is not here from the Hugging Face hub")
    parser.add_argument(DRY_RUN, action="store_true", help="print recipe, parameters, memory and steps; do not start")
    parser.add_argument(GPUS, type=int, help="with --dry-run: GPUs to reckon with, on this machine or another")
    return parser


@dataclass
class CommandLine:
    """What the words of a command line ask for."""

    recipe: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of `neo.training.train`."""
    overrides: list[str] = field(default_factory=list)
    """Words that set fields of the recipe."""
    dry_run: bool = False
    gpus: int | None = None


def train(options: Namespace) -> int:
    """`neo train`"""
    command = read(options.words)
    first = os.environ.get("RANK", "0") == "0"
    if first and not command.dry_run:
        logging.getLogger("neo").setLevel(logging.INFO)
        # At once: what follows takes seconds, importing torch to begin with.
        logger.info("starting %s", command.recipe or f"to fine-tune {command.options['model']}")
    quiet_transformers()
    config, given = _prepared(command)
    if command.dry_run:
        from neo.training.plan import plan

        say(plan(config, command.gpus).report())
        return 0
    from neo.training import trainer

    folder = trainer.train(config, given)
    if first:
        say(str(folder))
    return 0


def read(words: Sequence[str]) -> CommandLine:
    """Sort the words of a command line; names of fields are not looked at, which would need torch.

    Raises:
        ValueError: they make no sense; the message says why.
    """
    rest = list(words)
    command = CommandLine(rest.pop(0) if rest and not rest[0].startswith("-") else None)
    while rest:
        word = rest.pop(0)
        name, equals, text = word.partition("=")
        known = name.replace("_", "-")
        if known in (DRY_RUN, DOWNLOAD):
            if equals:
                raise ValueError(f"{known} takes no value")
            if known == DRY_RUN:
                command.dry_run = True
            else:
                command.options["download"] = True
            continue
        if not name.startswith("--") or not (equals or rest):
            records = f"; for records write --data {word}" if _is_records(word) else ""
            raise ValueError(f"{word!r} is no option with its value; write --name value or --name=value{records}")
        text = text if equals else rest.pop(0)
        if known == GPUS:
            command.gpus = _typed(int, text, GPUS)
        elif known in OPTIONS:
            argument, kind, _ = OPTIONS[known]
            value = _typed(kind, text, known)
            command.options[argument] = [*command.options.get(argument, []), value] if known == "--data" else value
        else:
            command.overrides += [name, text]
    _check(command)
    return command


def _typed(kind: type, text: str, name: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} must be {NUMBERS[kind]}") from None


def _check(command: CommandLine) -> None:
    given = [name for name, (argument, *_) in OPTIONS.items() if argument in command.options]
    if command.gpus is not None and (command.gpus < 1 or not command.dry_run):
        raise ValueError(
            f"{GPUS} {command.gpus} belongs to {DRY_RUN} and must be at least 1; a run on several GPUs is started by "
            "torchrun (docs/training.md)"
        )
    if command.recipe is not None and _is_records(command.recipe):
        raise ValueError(
            f"{command.recipe} is no recipe (a YAML file); for records write neo train --model MODEL --data "
            f"{command.recipe}"
        )
    if command.recipe is not None and "download" in command.options:
        raise ValueError(f"{DOWNLOAD} goes with --model; for the recipe {command.recipe} use 'hf download'")
    if command.recipe is not None and given:
        raise ValueError(
            f"{given[0]} does not go with the recipe {command.recipe}, whose own fields say that "
            "(model.path, data.sources, steps, output_dir, ...); leave out one of them"
        )
    if command.recipe is None:
        for name in ("--model", "--data"):
            if name not in given:
                slip = next((f"; or is {one} it?" for one in command.overrides[::2] if nearest(one, [name])), "")
                raise ValueError(f"neo train needs a recipe, or --model and --data; {name} is missing{slip}")


def _is_records(path: str) -> bool:
    """Whether a word that is no option names records rather than a recipe."""
    from neo.data.sources.files import ENDINGS

    return Path(path).suffix.lower() in ENDINGS or Path(path).is_dir()


def _prepared(command: CommandLine) -> tuple[Any, Any]:
    """The recipe, and the records that it does not name."""
    from neo.training import load_recipe
    from neo.training.recipe import override
    from neo.training.simple import prepare

    if command.recipe is not None:
        return load_recipe(command.recipe, command.overrides), None
    _check_fields(command)
    values = override({}, command.overrides)
    values["model"] = values.get("model", {}) | {"path": command.options["model"]}
    return prepare(**command.options | values)


def _check_fields(command: CommandLine) -> None:
    """Those that a command line without a recipe sets."""
    from neo.training.config import TrainConfig
    from neo.training.recipe import meant
    from neo.training.simple import ELSEWHERE

    called = {argument: option for option, (argument, *_) in OPTIONS.items()}
    known = {one.name for one in fields(TrainConfig)}
    for name in command.overrides[::2]:
        dotted = name.removeprefix("--").removeprefix("set.")
        field_name = dotted.partition(".")[0]
        if dotted in (*command.options, "model.path"):
            raise ValueError(f"{name} says again what another option has said; leave out one of them")
        if field_name not in known:
            near = nearest(name, [*OPTIONS, DOWNLOAD, DRY_RUN, GPUS])
            near = near or called.get(ELSEWHERE.get(field_name.replace("-", "_"), ""))
            of_recipe = meant(field_name, "", known).replace("did you mean ", "did you mean --")
            raise ValueError(f"{name} is not an option of neo train{f'; did you mean {near}?' if near else of_recipe}")
