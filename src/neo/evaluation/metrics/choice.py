"""Questions with choices: which of them an answer means, however it says so."""

import re
from collections.abc import Sequence

from neo.evaluation.metrics.metric import Case
from neo.evaluation.metrics.text import normal

_ANSWER = r"(?:answer|(?:option|choice)(?=\s+is\b|[\s*_]*:))(?:\s+is)?\s*:?\s*(?:option\s+|choice\s+)?(?:[^\w,.;]|_)*"
"""What says that a letter is the answer; "option B" alone may as well say that it is none."""
_PRONOUN = r"\bI(?=\s+(?!is\b|or\b|and\b)[a-z])"
"""The English word, not the ninth letter."""


def letters(number: int) -> str:
    """The letters of so many choices: ABCD."""
    return "".join(chr(ord("A") + place) for place in range(number))


def holds(text: str, words: str) -> bool:
    """Whether words stand in a text, not as parts of others: 2 is not in 2024."""
    return bool(words) and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def chosen(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice that a text means, or None.

    The first of these that there is: the text is a choice's; it is a letter alone, also a small one; a letter behind
    "answer" or "option is" or the like, the last one; a letter that begins it, as in "B." or "B) a cat"; a letter in
    brackets, the last one; the only letter behind "option" or "choice"; the only choice whose text it holds, where one
    is part of another the longer; the only letter of them that stands alone as a capital, unless it is an A that could
    be an article or an I that is a pronoun.

    Args:
        text: the answer.
        choices: their texts, or only their letters.
    """
    known, texts = letters(len(choices)), [normal(choice) for choice in choices]
    said, one = normal(text), f"[{letters(len(choices))}]"
    if said in texts:
        return known[texts.index(said)]
    if found := re.fullmatch(rf"\W*({one})\W*", text.strip(), re.IGNORECASE):
        return found[1].upper()
    if answers := re.findall(rf"(?i:{_ANSWER})({one})(?![\w'’])", text):
        return answers[-1]
    if found := re.match(rf"[\s*_]*({one})[).:,]", text):
        return found[1]
    if brackets := re.findall(rf"[(\[]({one})[)\]]", text):
        return brackets[-1]
    if len(options := set(re.findall(rf"(?i:option|choice)\s+({one})(?![\w'’])", text))) == 1:
        return options.pop()
    held = {one for one in texts if holds(said, one)}
    held = {one for one in held if not any(one in other for other in held - {one})}
    if len(held) == 1:
        return known[texts.index(held.pop())]
    alone = set(re.findall(rf"(?<![\w'’])(?!{_PRONOUN})({one})(?![\w'’])", text))
    article = alone == {"A"} and re.search(r"\bA\s+[a-z]", text)
    return alone.pop() if len(alone) == 1 and not article else None


def choice(case: Case) -> float:
    """Whether the answer means the expected choice, which is told by its letter or its text.

    Raises:
        ValueError: the record has no choices, or the expected one is not among them.
    """
    if len(case.choices) < 2:
        raise ValueError(f"{case.where}: metric choice needs 'choices', a list of at least two texts")
    known, texts = letters(len(case.choices)), [normal(one) for one in case.choices]
    right = set()
    for expected in case.expected:
        if normal(expected) in texts:
            right.add(known[texts.index(normal(expected))])
        elif len(expected.strip()) == 1 and expected.strip().upper() in known:
            right.add(expected.strip().upper())
        else:
            raise ValueError(f"{case.where}: the answer {expected!r:.60} is none of the choices, nor the letter of one")
    return float(chosen(case.predicted, case.choices) in right)
