"""The `neo` command: parses and calls. Answers go to stdout, everything else to stderr.

Bad input is one sentence on stderr and exit code 2. torch is imported only by the commands that need it, so
that help comes at once.
"""

import os
import sys
from argparse import ArgumentError
from collections.abc import Callable

from jsonargparse import Namespace

from neo.cli.ask import ask, ask_parser, chat, chat_parser, words_last
from neo.cli.batch import batch, batch_parser
from neo.cli.bench import bench, bench_parser
from neo.cli.console import complain, make_parser, quiet_libraries
from neo.cli.data import add_tools, data, data_parser
from neo.cli.eval import eval_parser, evaluate
from neo.cli.export import export, export_parser
from neo.cli.info import info, info_parser, init, init_parser
from neo.cli.mistakes import explained
from neo.cli.serve import serve, serve_parser
from neo.cli.train import train, train_parser
from neo.version import __version__

COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "ask": ask,
    "batch": batch,
    "bench": bench,
    "chat": chat,
    "data": data,
    "eval": evaluate,
    "export": export,
    "info": info,
    "init": init,
    "serve": serve,
    "train": train,
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        quiet_libraries()
        return COMMANDS[options.command](options[options.command])
    except ValueError as error:
        complain(error)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a folder that may not be written, a full disk
        complain(error)
        return 2


def parse(words: list[str]) -> Namespace:
    """The command and its options.

    Raises:
        ValueError: they make no sense; the message says why.
    """
    parser = make_parser(
        "", "NEO, a vision-language model: ask about pictures, train your own.", "[--version] COMMAND ..."
    )
    parser.add_argument("--version", action="version", version=f"neo {__version__}", help="show the version")
    commands = parser.add_subcommands(required=True, dest="command", metavar="COMMAND")
    ask = ask_parser()
    commands.add_subcommand("ask", ask, help="ask a question about pictures")
    commands.add_subcommand("chat", chat_parser(), help="talk about pictures")
    commands.add_subcommand("info", info_parser(), help="what a model is and costs")
    commands.add_subcommand("init", init_parser(), help="grow a NEO from a language model")
    commands.add_subcommand("train", train_parser(), help="fine-tune on records, or run a recipe")
    data = data_parser()
    commands.add_subcommand("data", data, help="look at data: check, stats, preview, convert, index")
    tools = add_tools(data)
    commands.add_subcommand("eval", eval_parser(), help="how good a model is on a test set; what it costs")
    commands.add_subcommand("export", export_parser(), help="merge an adapter, change the dtype")
    commands.add_subcommand("bench", bench_parser(), help="how fast a model answers on this machine")
    commands.add_subcommand("batch", batch_parser(), help="answer a file of records, or about a folder of pictures")
    commands.add_subcommand("serve", serve_parser(), help="answer over HTTP, as OpenAI does")
    if not words:
        raise ValueError(f"which command? {', '.join(COMMANDS)}; neo --help explains them")
    if words == ["data"]:
        raise ValueError("which tool? index, check, stats, preview or convert; neo data --help explains them")
    if words[0] == "ask":
        words = ["ask", *words_last(words[1:], ask)]
    if words[0] == "train":
        if not {"-h", "--help"} & set(words):
            return Namespace(command="train", train=Namespace(words=words[1:]))
        words = ["train", "--help"]
    try:
        return parser.parse_args(words)
    except ArgumentError as error:
        of_tools = {f"data {name}": tool for name, tool in tools.choices.items()}
        raise ValueError(explained(str(error), words, {"": parser, **commands.choices, **of_tools})) from error
