"""`neo train`."""

import logging

from jsonargparse import ArgumentParser, Namespace

from neo.cli.console import make_parser, quiet_transformers, say


def train_parser() -> ArgumentParser:
    parser = make_parser(
        "train",
        "Run a training recipe. Anything in it can be changed by its path.\n\n"
        "  neo train recipes/demo_sft.yaml --steps 100 --optimizer.learning_rate 1e-4",
        "RECIPE.yaml [--key.path value ...]",
    )
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="what to train, on what, and how")
    return parser


def train(options: Namespace) -> int:
    """`neo train`"""
    from neo import training

    logging.getLogger("neo").setLevel(logging.INFO)
    config = training.load_recipe(options.recipe, options.get("overrides") or [])
    quiet_transformers()
    say(str(training.train(config)))
    return 0
