"""The accuracy of VQA v2 and TextVQA: agreement with ten people."""

import re

from neo.evaluation.metrics.metric import Case

LEAST_ANSWERS = 4
"""With fewer people's answers not even the one that all gave would count fully."""
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(digit) for digit, word in enumerate(_NUMBERS)} | {"none": "0"}
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's
won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_WITH_APOSTROPHE = {word.replace("'", ""): word for word in _CONTRACTIONS.split()}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def vqa(case: Case) -> float:
    """Agreement with ten people's answers: 1 where three of the others gave it, averaged over leaving each one out.

    The accuracy of VQA v2 (arXiv:1505.00468) and TextVQA. Texts are compared without punctuation, articles and case,
    number words as digits, apostrophes of contractions put back.

    Raises:
        ValueError: the record has fewer than four answers.
    """
    if len(case.expected) < LEAST_ANSWERS:
        raise ValueError(
            f"{case.where}: metric vqa needs 'answers' of at least {LEAST_ANSWERS} people, usually 10, "
            f"not {len(case.expected)}"
        )
    said, answers = vqa_normal(case.predicted), [vqa_normal(answer) for answer in case.expected]
    agreeing = sum(answer == said for answer in answers)
    return sum(min(1.0, (agreeing - (answer == said)) / 3) for answer in answers) / len(answers)


def vqa_normal(text: str) -> str:
    """An answer in the form in which VQA compares it."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    original = text
    for mark in _PUNCTUATION:  # a mark that stands beside a space anywhere goes, any other parts words
        text = text.replace(mark, "" if f"{mark} " in original or f" {mark}" in original else " ")
    text = re.sub(r"\.(?!\d)", "", text)
    words = [_DIGITS.get(word, word) for word in text.split()]
    return " ".join(_WITH_APOSTROPHE.get(word, word) for word in words if word not in ("a", "an", "the"))
