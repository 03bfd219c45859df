"""The `neo` command: parses and calls. Answers go to stdout, everything else to stderr.

Bad input is one sentence on stderr and exit code 2. torch is imported only by the commands that need it, so
that help comes at once.
"""

import itertools
import json
import logging
import os
import re
import sys
import time
import warnings
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from neo.version import __version__


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        _still_other_libraries()
        return COMMANDS[options.command](options[options.command])
    except ArgumentError as error:
        complain(f"{_plainly(str(error))} (neo --help and neo COMMAND --help list what there is)")
        return 2
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


def complain(error: Exception | str) -> None:
    """One sentence on stderr."""
    sys.stderr.write(f"neo: {' '.join(str(error).split())}\n")


def _plainly(complaint: str) -> str:
    """The argument parser's words for people."""
    wrong = re.match(r"Parser key \"(\w+)\":\s+Expected a <class '(\w+)'>\. Got value: (.*)", complaint)
    if wrong:
        kind = {"int": "a whole number", "float": "a number"}.get(wrong[2], wrong[2])
        return f"--{wrong[1].replace('_', '-')} must be {kind}, not {wrong[3]!r}"
    missing = {"ask.words": "neo ask needs a question", "train.recipe": "neo train needs a recipe"}
    return missing.get(complaint.rpartition(": ")[2], complaint)


def say(text: str, end: str = "\n") -> None:
    """To stdout, at once."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def _still_other_libraries() -> None:
    logging.basicConfig(format="neo: %(message)s", level=logging.WARNING, stream=sys.stderr)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


# --- what can be typed ---


class _Help(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of descriptions, where the examples are."""


def _parser(name: str, description: str, usage: str = "") -> ArgumentParser:
    return ArgumentParser(
        prog=f"neo {name}".strip(),
        usage=f"neo {name} {usage}".replace("  ", " ") if usage else None,
        description=description,
        formatter_class=_Help,
        exit_on_error=False,
        allow_abbrev=False,
    )


def _add_model_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", default="neo-demo", help="neo-demo, NEO-2B-SFT and the like, a hub id or a folder")
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
    add("--dtype", default="auto", help="fp32, bf16, fp16, or auto: the checkpoint's")
    add("--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto: the best there is")
    add("--download", action="store_true", help="fetch the model from the Hugging Face hub if it is not here")


def _ask_parser() -> ArgumentParser:
    parser = _parser(
        "ask",
        "Ask one question, about pictures or about nothing but itself. The answer alone goes to stdout.\n\n"
        "  neo ask photo.jpg 'What color is the circle?'\n"
        "  neo ask before.png after.png 'What has changed?' --model NEO-2B-SFT\n"
        "  neo ask 'Who are you?'\n"
        "  cat photo.jpg | neo ask - 'What is this?'\n"
        "  cat question.txt | neo ask photo.jpg -\n\n"
        "The last word is the question and those before it are pictures. A '-' before the last is a picture\n"
        "read from stdin; a '-' in the last place is the question read from stdin.",
        "[options] [PICTURE ...] QUESTION",
    )
    parser.add_argument("words", nargs="+", metavar="PICTURE, QUESTION", help="pictures and, last, the question")
    _add_model_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object: model, images, question, answer ...")
    parser.add_argument("--stream", action="store_true", help="write the answer as it is said")
    return parser


def _chat_parser() -> ArgumentParser:
    parser = _parser(
        "chat",
        "Talk about pictures. Reads a line for each turn, from the keyboard or a pipe, until its end.\n\n"
        "  neo chat photo.jpg\n\n" + CHAT_HELP,
        "[options] [PICTURE]",
    )
    parser.add_argument("picture", nargs="?", metavar="PICTURE", help="shown with the first question")
    _add_model_options(parser)
    return parser


def _info_parser() -> ArgumentParser:
    parser = _parser(
        "info",
        "What a model is and costs: parameters by part, cache, arithmetic, memory; for a model on this\n"
        "machine also its picture sizes and what it can and cannot do.\n\n"
        "  neo info\n"
        "  neo info --preset 2b",
        "[options] [MODEL]",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="as in neo ask; neo-demo unless given")
    parser.add_argument("--preset", help="a size instead of a model: demo, 2b or 9b")
    parser.add_argument("--json", action="store_true", help="one JSON object, in bytes and single operations")
    parser.add_argument("--download", action="store_true", help="fetch the model from the Hugging Face hub")
    return parser


def _init_parser() -> ArgumentParser:
    parser = _parser(
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


def _train_parser() -> ArgumentParser:
    parser = _parser(
        "train",
        "Run a training recipe. Anything in it can be changed by its path.\n\n"
        "  neo train recipes/demo_sft.yaml --steps 100 --optimizer.learning_rate 1e-4",
        "RECIPE.yaml [--key.path value ...]",
    )
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="what to train, on what, and how")
    return parser


def parse(words: list[str]) -> Namespace:
    """The command and its options.

    Raises:
        ArgumentError, ValueError: they make no sense; the message says why.
    """
    parser = _parser("", "NEO, a vision-language model: ask about pictures, train your own.", "[--version] COMMAND ...")
    parser.add_argument("--version", action="version", version=f"neo {__version__}", help="show the version")
    commands = parser.add_subcommands(required=True, dest="command", metavar="COMMAND")
    ask = _ask_parser()
    commands.add_subcommand("ask", ask, help="ask a question about pictures")
    commands.add_subcommand("chat", _chat_parser(), help="talk about pictures")
    commands.add_subcommand("info", _info_parser(), help="what a model is and costs")
    commands.add_subcommand("init", _init_parser(), help="grow a NEO from a language model")
    commands.add_subcommand("train", _train_parser(), help="run a training recipe")
    if not words:
        raise ValueError("which command? ask, chat, info, init or train; neo --help explains them")
    if words[0] == "ask":
        words = ["ask", *_words_last(words[1:], ask)]
    overrides: list[str] = []
    if words[0] == "train" and words[1:] and not words[1].startswith("-"):
        words, overrides = words[:2], words[2:]
        if {"-h", "--help"} & set(overrides):
            words = ["train", "--help"]
    options = parser.parse_args(words)
    if overrides:
        options["train.overrides"] = overrides
    return options


def _words_last(words: list[str], parser: ArgumentParser) -> list[str]:
    """Options first, so that they may stand between pictures and question."""
    with_value = {name for action in parser._actions if action.nargs != 0 for name in action.option_strings}
    options: list[str] = []
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--":
            others += rest
        elif word.startswith("--") or word == "-h":
            options.append(word)
            if word in with_value:
                options += itertools.islice(rest, 1)
        else:
            others.append(word)
    return [*options, *(["--", *others] if others else [])]


# --- commands ---


def ask(options: Namespace) -> int:
    """`neo ask`"""
    if options.json and options.stream:
        raise ValueError("--json writes one object at the end and --stream writes as it goes; choose one")
    *sources, question = options.words
    if question == "-":
        if "-" in sources:
            raise ValueError("stdin can be a picture or the question, not both: only one word may be '-'")
        question = sys.stdin.read().strip()
    elif _is_file(question):
        raise ValueError(f"{question} is a file where the question should be: neo ask [PICTURE ...] QUESTION")
    if not question.strip() and not sources:
        raise ValueError("the question is empty: neo ask [PICTURE ...] QUESTION")
    pictures = _open_pictures(sources)
    model = _load(options)
    about = {"image": pictures or None, "text": question, "system": options.system, "tile": options.tile}
    if options.stream:
        for piece in model.stream(**about, **_sampling(options)):
            say(piece, end="")
        say("")
        return 0
    start = time.perf_counter()
    answer = model.answer(**about, **_sampling(options))
    seconds = round(time.perf_counter() - start, 3)
    if options.json:
        fields = {"model": options.model, "images": sources, "question": question, "answer": answer.text}
        say(json.dumps({**fields, "new_tokens": answer.new_tokens, "seconds": seconds}, ensure_ascii=False))
    else:
        say(answer.text)
    return 0


CHAT_HELP = """\
/image PATH  show a picture with the next question; several times for several
/reset       begin anew
/help        these lines
/quit        end (so does the end of input)"""


def chat(options: Namespace) -> int:
    """`neo chat`"""
    from neo.processing.picture import load_image

    waiting = [load_image(options.picture)] if options.picture else []
    talk = _load(options).start_chat(options.system, options.tile)
    sampling = _sampling(options)
    typed = sys.stdin.isatty()
    failed = False
    if typed:
        sys.stderr.write(f"Ask {options.model} something.\n{CHAT_HELP}\n")
    for line in _lines(typed):
        command, _, argument = line.partition(" ")
        try:
            if command in ("/quit", "/exit"):
                break
            if command == "/image":
                waiting.append(load_image(argument.strip().strip("'\"")))
            elif command == "/reset":
                talk.reset()
                waiting = []
            elif command == "/help":
                sys.stderr.write(CHAT_HELP + "\n")
            elif command.startswith("/"):
                raise ValueError(f"there is no command {command}: /image, /reset, /help and /quit are")
            else:
                for piece in talk.stream(line, waiting or None, **sampling):
                    say(piece, end="")
                say("")
                waiting = []
        except ValueError as error:  # in a conversation the next line may do better
            complain(error)
            failed = True
    return 2 if failed and not typed else 0


def _lines(typed: bool) -> Iterator[str]:
    while True:
        try:
            line = input("> ") if typed else sys.stdin.readline()
        except EOFError:
            return
        if not line and not typed:
            return
        if line.strip():
            yield line.strip()


def info(options: Namespace) -> int:
    """`neo info`"""
    from neo.inference.describe import describe, describe_preset, report

    if options.preset and options.model:
        raise ValueError(f"give either the model {options.model} or --preset {options.preset}, not both")
    _still_transformers()
    facts = (
        describe_preset(options.preset) if options.preset else describe(options.model or "neo-demo", options.download)
    )
    say(json.dumps(facts, ensure_ascii=False, indent=2) if options.json else report(facts))
    return 0


def init(options: Namespace) -> int:
    """`neo init`"""
    from neo.training.grow import grow_folder

    _still_transformers()
    output = grow_folder(options.llm, options.pre_buffer_layers, options.output, options.dtype, options.seed)
    say(str(output))
    return 0


def train(options: Namespace) -> int:
    """`neo train`"""
    from neo import training

    logging.getLogger("neo").setLevel(logging.INFO)
    config = training.load_recipe(options.recipe, options.get("overrides") or [])
    _still_transformers()
    say(str(training.train(config)))
    return 0


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "ask": ask,
    "chat": chat,
    "info": info,
    "init": init,
    "train": train,
}


def _load(options: Namespace) -> Any:
    from neo.inference.chat import load_model

    _still_transformers()
    return load_model(options.model, dtype=options.dtype, device=options.device, download=options.download)


def _still_transformers() -> None:
    """No progress bars and advice of transformers on stderr: what matters is an error or comes from neo."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _sampling(options: Namespace) -> dict[str, Any]:
    names = ("max_new_tokens", "temperature", "top_p", "top_k", "seed")
    return {name: options[name] for name in names}


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except OSError:  # too long for a file name
        return False


def _open_pictures(sources: list[str]) -> list[Any]:
    """Pictures of paths, and of stdin for '-'; opened before any model is loaded."""
    from neo.processing.picture import load_image

    if sources.count("-") > 1:
        raise ValueError("stdin holds one picture: only one word may be '-'")
    return [load_image(sys.stdin.buffer.read(), "stdin") if one == "-" else load_image(one) for one in sources]


if __name__ == "__main__":
    sys.exit(main())
