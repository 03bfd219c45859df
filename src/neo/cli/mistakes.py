"""What is wrong with a command line, in people's words rather than the argument parser's."""

import re
from collections.abc import Mapping, Sequence

from jsonargparse import ArgumentParser

from neo.cli.data import MISSING as DATA_MISSING
from neo.suggestion import suggestion

MISSING = {"ask.words": "neo ask needs a question", **DATA_MISSING}
"""What the parser calls an argument that is missing, and what people are told."""
KINDS = {"int": "a whole number", "float": "a number"}


def explained(complaint: str, words: Sequence[str], parsers: Mapping[str, ArgumentParser]) -> str:
    """One sentence on a command line that was refused.

    Args:
        complaint: the parser's.
        words: of the command line.
        parsers: those of the commands, by name, as `export` and `data check`; "" is neo's own.
    """
    name = next(name for name in (" ".join(words[:2]), words[0], "") if name in parsers)
    command = f"neo {name}".strip()
    options = [one for one in parsers[name]._option_string_actions if one.startswith("--") and one != "--help"]
    return f"{_sentence(complaint, command, options, parsers)} ({command} --help lists what there is)"


def _sentence(complaint: str, command: str, options: Sequence[str], parsers: Mapping[str, ArgumentParser]) -> str:
    if found := re.search(r"argument (COMMAND|TOOL): invalid choice: '(.*?)'", complaint):
        names = [name.removeprefix("data ") for name in parsers if name and (" " in name) == (found[1] == "TOOL")]
        return f"{command} has no {found[1].lower()} {found[2]!r}{suggestion(found[2], names)}"
    if found := re.search(r"unrecognized arguments: (\S+)", complaint):
        if found[1].startswith("-"):
            return f"{command} has no option {found[1]}{suggestion(found[1].partition('=')[0], options)}"
        return f"{command} does not take the word {found[1]!r}"
    if found := re.search(r"arguments are required: (.*)", complaint):
        missing = found[1].split(", ")
        names = [f"--{one.rpartition('.')[2].replace('_', '-')}" for one in missing]
        return MISSING.get(missing[0], f"{command} needs {' and '.join(names)}")
    if found := re.search(r"argument (\S+): expected one argument", complaint):
        return f"{found[1]} needs a value"
    if found := re.search(r"argument (\S+): expected (\d+) arguments", complaint):
        return f"{found[1]} needs {found[2]} values"
    if found := re.match(r"Parser key \"([\w.]+)\":\s+Expected a <class '(\w+)'>\. Got value: (.*)", complaint):
        name = found[1].rpartition(".")[2].replace("_", "-")
        return f"--{name} must be {KINDS.get(found[2], found[2])}, not {found[3]!r}"
    return complaint
