"""`neo ask` and `neo chat`."""

import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from neo.cli.answers import add_answer_options, add_form_options, form, sampling
from neo.cli.console import complain, make_parser, say
from neo.cli.model import load

CHAT_HELP = """\
/image PATH  show a picture with the next question; several times for several
/video PATH  show a video, or a folder of its frames, with the next question
/reset       begin anew
/help        these lines
/quit        end (so does the end of input)"""


def ask_parser() -> ArgumentParser:
    parser = make_parser(
        "ask",
        "Ask one question, about pictures or about nothing but itself. The answer alone goes to stdout.\n\n"
        "  neo ask photo.jpg 'What color is the circle?'\n"
        "  neo ask before.png after.png 'What has changed?' --model NEO-2B-SFT\n"
        "  neo ask clip.mp4 'What happens here?' --fps 2\n"
        "  neo ask photo.jpg 'Describe it.' --n 3 --temperature 0.8\n"
        "  neo ask 'Who are you?'\n"
        "  cat photo.jpg | neo ask - 'What is this?'\n"
        "  cat question.txt | neo ask photo.jpg -\n\n"
        "The last word is the question and those before it are pictures, or one video: a file whose name ends in\n"
        ".mp4 or the like, or a folder of frames. A '-' before the last is a picture read from stdin; a '-' in the\n"
        "last place is the question read from stdin.",
        "[options] [PICTURE ...] QUESTION",
    )
    parser.add_argument("words", nargs="+", metavar="PICTURE, QUESTION", help="pictures and, last, the question")
    _add_options(parser)
    parser.add_argument("--n", type=int, help="so many answers, which differ where --temperature is above 0")
    add_form_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object: model, images, question, answer ...")
    parser.add_argument("--stream", action="store_true", help="write the answer as it is said")
    return parser


def chat_parser() -> ArgumentParser:
    parser = make_parser(
        "chat",
        "Talk about pictures. Reads a line for each turn, from the keyboard or a pipe, until its end.\n\n"
        "  neo chat photo.jpg\n"
        "  neo chat clip.mp4 --fps 2\n\n" + CHAT_HELP,
        "[options] [PICTURE]",
    )
    parser.add_argument("picture", nargs="?", metavar="PICTURE", help="or video, shown with the first question")
    _add_options(parser)
    return parser


def _add_options(parser: ArgumentParser) -> None:
    add_answer_options(parser)
    parser.add_argument("--fps", type=float, default=1.0, help="frames of a video to look at in a second")
    parser.add_argument("--max-frames", type=int, default=128, help="most frames, spread over a longer video")


def words_last(words: list[str], parser: ArgumentParser) -> list[str]:
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


def ask(options: Namespace) -> int:
    """`neo ask`"""
    if options.json and options.stream:
        raise ValueError("--json writes one object at the end and --stream writes as it goes; choose one")
    if options.n is not None and options.stream:
        raise ValueError("--n gives several answers, which cannot be written as they are said: leave out --stream")
    *sources, question = options.words
    if question == "-":
        if "-" in sources:
            raise ValueError("stdin can be a picture or the question, not both: only one word may be '-'")
        question = sys.stdin.read().strip()
    elif _is_file(question):
        raise ValueError(f"{question} is a file where the question should be: neo ask [PICTURE ...] QUESTION")
    if not question.strip() and not sources:
        raise ValueError("the question is empty: neo ask [PICTURE ...] QUESTION")
    shown = _shown(sources, options)
    held = form(options)
    model = load(options)
    about = {"text": question, "system": options.system, "tile": options.tile, **shown, **held}
    if options.stream:
        for piece in model.stream(**about, **sampling(options)):
            say(piece, end="")
        say("")
        return 0
    start = time.perf_counter()
    answers = model.answers(**about, **sampling(options), n=1 if options.n is None else options.n)
    seconds = round(time.perf_counter() - start, 3)
    if options.json:
        texts = [answer.text for answer in answers]
        fields = {"model": options.model, "images": sources, "question": question}
        fields |= {"answer": texts[0]} if options.n is None else {"answers": texts}
        new_tokens = sum(len(answer.tokens) for answer in answers)
        say(json.dumps({**fields, "new_tokens": new_tokens, "seconds": seconds}, ensure_ascii=False))
    else:
        for answer in answers:
            say(answer.text)
    return 0


def chat(options: Namespace) -> int:
    """`neo chat`"""
    waiting = _with({}, options.picture, _is_video(options.picture), options) if options.picture else {}
    talk = load(options).start_chat(options.system, options.tile)
    chosen = sampling(options)
    typed = sys.stdin.isatty()
    failed = False
    if typed:
        sys.stderr.write(f"Ask {options.model} something.\n{CHAT_HELP}\n")
    for line in _lines(typed):
        command, _, argument = line.partition(" ")
        try:
            if command in ("/quit", "/exit"):
                break
            if command in ("/image", "/video"):
                waiting = _with(waiting, argument.strip().strip("'\""), command == "/video", options)
            elif command == "/reset":
                talk.reset()
                waiting = {}
            elif command == "/help":
                sys.stderr.write(CHAT_HELP + "\n")
            elif command.startswith("/"):
                raise ValueError(f"there is no command {command}: /image, /video, /reset, /help and /quit are")
            else:
                for piece in talk.stream(line, **waiting, **chosen):
                    say(piece, end="")
                say("")
                waiting = {}
        except ValueError as error:  # in a conversation the next line may do better
            complain(error)
            failed = True
    return 2 if failed and not typed else 0


def _with(waiting: dict[str, Any], path: str, video: bool, options: Namespace) -> dict[str, Any]:
    """What waits for the next question, and one more picture or a video."""
    from neo.processing.picture import load_image

    if "video" in waiting or (video and waiting):
        raise ValueError("a video stands alone before a question: ask about what is there, or /reset")
    return _video(path, options) if video else {"image": [*waiting.get("image", []), load_image(path)]}


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


def _is_file(word: str) -> bool:
    try:
        return Path(word).is_file()
    except OSError:  # too long for a file name
        return False


def _shown(sources: list[str], options: Namespace) -> dict[str, Any]:
    """The pictures or the video that is asked about; opened before any model is loaded."""
    videos = [one for one in sources if _is_video(one)]
    if not videos:
        return {"image": _open_pictures(sources) or None}
    if len(sources) > 1:
        raise ValueError(f"{videos[0]} is a video, which stands alone before the question")
    return _video(videos[0], options)


def _is_video(source: str) -> bool:
    from neo.processing.video import SUFFIXES

    return source.lower().endswith(SUFFIXES) or (source != "-" and Path(source).is_dir())


def _video(path: str, options: Namespace) -> dict[str, Any]:
    from neo.processing.video import read_frames

    return {"video": read_frames(path, options.fps, options.max_frames)}


def _open_pictures(sources: list[str]) -> list[Any]:
    """Pictures of paths, and of stdin for '-'."""
    from neo.processing.picture import load_image

    if sources.count("-") > 1:
        raise ValueError("stdin holds one picture: only one word may be '-'")
    return [load_image(sys.stdin.buffer.read(), "stdin") if one == "-" else load_image(one) for one in sources]
