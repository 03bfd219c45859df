"""What to say of a name that there is not: one wording, here for every room."""

import difflib
from collections.abc import Iterable

LIKE = 0.6
"""Names that are less alike (`difflib`, 0 to 1) are no slip of the other."""
FEW = 16
"""So many names are listed where none is like it."""


def suggestion(name: object, choices: Iterable[str]) -> str:
    """The end of a sentence about a name that there is not.

    Args:
        name: what was given; upper and lower case, `-` and `_` make no difference.
        choices: the names that there are.

    Returns:
        "; did you mean steps?", or else "; choose one of llm, pt, mt, sft" if there are few, or else nothing.
    """
    choices = list(choices)
    if near := nearest(name, choices):
        return f"; did you mean {near}?"
    return f"; choose one of {', '.join(choices)}" if 0 < len(choices) <= FEW else ""


def nearest(name: object, choices: Iterable[str]) -> str | None:
    """The choice that a name is a slip of, if it is one."""
    names = {_plain(choice): choice for choice in choices}
    near = difflib.get_close_matches(_plain(str(name)), names, n=1, cutoff=LIKE)
    return names[near[0]] if near else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
