"""Numbers, words, scans, charts, receipts, conversations and how answers are compared."""

import importlib.util
import json
import re
import sys

import numpy as np
import pytest

from neo.synthetic import fonts, generate, matches
from neo.synthetic.chart import chart, chart_turns, draw_chart
from neo.synthetic.fonts import FONTS, font
from neo.synthetic.receipt import Receipt, receipt, receipt_turns
from neo.synthetic.text_pictures import number, scans, word, writing_turns
from neo.synthetic.words import WORDS


def rngs(count=200):
    return (np.random.default_rng([index, 5]) for index in range(count))


def test_no_scan_is_in_both_splits():
    train, test = scans("train"), scans("test")
    assert (len(train), len(test)) == (1438, 359)
    assert not {scan.pixels.tobytes() for scan in train} & {scan.pixels.tobytes() for scan in test}
    assert {scan.digit for scan in test} == set(range(10))


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"scikit-learn: pip install \"neo-vlm\[train\]\""):
        scans.__wrapped__("train")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"matplotlib: pip install \"neo-vlm\[train\]\""):
        fonts._folder.__wrapped__()


def test_every_font_has_letters_and_digits_of_its_own():
    for name in FONTS:
        drawn = {bytes(font(name, 24).getmask(sign)) for sign in "abcdefghijkmnopqrstuvwxyz0123456789"}
        assert len(drawn) == 35, name  # a missing glyph is the same box every time


def test_numbers_and_words():
    lengths = set()
    for rng in rngs():
        written = number(rng)
        assert written.text == written.answer == str(int(written.answer))
        lengths.add(len(written.answer))
        written = word(rng)
        assert written.answer == written.text.lower()
        turns = {turn.question: turn.answer for turn in writing_turns(rng, written, False)}
        assert written.answer in turns.values()
        assert turns.get("How many letters are there?", str(len(written.answer))) == str(len(written.answer))
    assert lengths == set(range(1, 7))
    assert len(WORDS) == len(set(WORDS)) > 300


def test_charts_are_read_rightly():
    for rng in rngs():
        bars = chart(rng)
        values = dict(zip(bars.labels, bars.values, strict=True))
        assert len(values) == len(set(values.values())) == len(bars.labels)
        for turn in chart_turns(rng, bars, True):
            if "tallest" in turn.question:
                assert values[turn.answer] == max(values.values())
            else:
                assert str(values[re.search(r"of (\w+)\?", turn.question)[1]]) == turn.answer
        assert draw_chart(rng, bars).mode == "RGB"


def test_receipts_add_up():
    bill = Receipt("Tea House", (("tea", 120), ("cake", 220)))
    items = '[{"name":"tea","price":"1.20"},{"name":"cake","price":"2.20"}]'
    assert bill.json() == '{"store":"Tea House","items":' + items + ',"total":"3.40"}'
    for rng in rngs():
        bill = receipt(rng)
        answers = [turn.answer for turn in receipt_turns(rng, bill, True)]
        read = json.loads(answers[1])
        assert answers[0] == read["total"]
        assert round(sum(float(item["price"]) for item in read["items"]), 2) == float(read["total"])


def test_conversations_have_no_picture_and_right_sums():
    sums = 0
    for index in range(400):
        for turn in generate(4, index, families={"text": 1.0}).turns:
            assert turn.question
            assert turn.answer
            if found := re.search(r"(\d+) (plus|minus|[+-]) (\d+)", turn.question):
                a, sign, b = int(found[1]), found[2], int(found[3])
                assert turn.answer == str(a + b if sign in ("plus", "+") else a - b)
                sums += 1
    assert sums > 40


@pytest.mark.parametrize(
    ("kind", "predicted", "expected", "same"),
    [
        ("color", " Red.", "red", True),
        ("color", "red one", "red", False),
        ("word", "APPLE", "apple", True),
        ("caption", "a red circle", "A red circle.", True),
        ("receipt", '{"total": "1.20", "store": "A"}', '{"store":"A","total":"1.20"}', True),
        ("receipt", '{"store":"A","total":"1.2', '{"store":"A","total":"1.20"}', False),
        ("receipt", "3.40", "3.40", True),
        ("receipt", "3.4", "3.40", False),
        ("count", "", "0", False),
    ],
)
def test_matches(kind, predicted, expected, same):
    assert matches(kind, predicted, expected) is same
