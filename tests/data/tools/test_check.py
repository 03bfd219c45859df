from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neo.data.sources import ListSource, Source
from neo.data.tools.check import DUPLICATES, EMPTY, KINDS, PICTURES, PLACEHOLDERS, TOO_LONG, UNREADABLE, check
from neo.processing.processor import NeoProcessor

ASKED = {"from": "human", "value": "<image>\nWhat?"}
SAID = {"from": "gpt", "value": "Noise."}


def record(picture: str | None, question: str, answer: str = "Noise.") -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"conversations": turns, **({"image": picture} if picture else {})}


@pytest.mark.parametrize("workers", [0, 2])
def test_each_kind_is_found_and_named(
    workers: int, records: Callable[..., Source], pictures: Path, processor: NeoProcessor
) -> None:
    whole = (pictures / "a.jpg").read_bytes()
    (pictures / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    source = records(
        [
            record("photos/a.jpg", "<image>\nWhat?"),
            record("photos/b.png", "<image>\nWhat?"),
            "{broken",
            record(None, "<image>\nWhat?"),
            record("photos/cut.jpg", "What?"),
            record("photos/none.jpg", "What?"),
            record("photos/a.jpg", "And now?", " \n"),
            {"question": "What?", "answer": ""},
            record("photos/a.jpg", "word " * 200),
            {"conversations": [ASKED, SAID], "images": ["photos/../photos/a.jpg"], "family": "another"},
            {"conversations": [{"from": "human", "value": "hi"}]},
        ]
    )
    report = check([source], processor, max_seq_length=200, workers=workers)
    assert report.records == 11
    assert report.wrong == {UNREADABLE: 1, PLACEHOLDERS: 1, PICTURES: 2, EMPTY: 3, TOO_LONG: 1, DUPLICATES: 1}
    found = {kind: [(one.index, one.message) for one in report.examples[kind]] for kind in KINDS}
    places = {kind: [index for index, _ in some] for kind, some in found.items()}
    assert places == {
        UNREADABLE: [2],
        PLACEHOLDERS: [3],
        PICTURES: [4, 5],
        EMPTY: [6, 7, 10],
        TOO_LONG: [8],
        DUPLICATES: [9],
    }
    for some in found.values():
        for index, message in some:
            assert f"mine.jsonl, line {index + 1}: " in message
    assert "truncated" in found[PICTURES][0][1]
    assert "turn 2 is an answer without words" in found[EMPTY][0][1]
    assert found[DUPLICATES][0][1].endswith(
        "line 10: the same as " + found[DUPLICATES][0][1].split(", line")[0] + ", line 1"
    )


def test_duplicates_are_found_in_any_form_and_source(pictures: Path, processor: NeoProcessor) -> None:
    path = pictures / "a.jpg"
    parts = [{"type": "image", "image": str(path)}, {"type": "text", "text": "What?"}]
    said = {"role": "assistant", "content": "Noise."}
    forms: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": "What?"}, said], "image": str(path)},
        {"messages": [{"role": "user", "content": parts}, said]},
        {"messages": [{"role": "user", "content": "<image>\nWhat?"}, said], "image": path.read_bytes()},
        {"question": "What?", "answer": "Noise.", "image": str(path)},
    ]
    other = {"messages": [{"role": "user", "content": "What?"}, said], "image": str(pictures / "b.png")}
    text = {"messages": [{"role": "user", "content": "What?"}, said]}
    report = check([ListSource(forms[:2], "one"), ListSource([other, text, *forms[2:]], "two")], processor, examples=1)
    assert report.wrong[DUPLICATES] == sum(report.wrong.values()) == 3
    (example,) = report.examples[DUPLICATES]
    assert (example.source, example.index) == ("one", 1)


def test_only_chosen_records_are_looked_at(records: Callable[..., Source], processor: NeoProcessor) -> None:
    source = records(["{broken", record(None, "What?"), "{broken", record(None, "What?")])
    report = check([source], processor, indices=[[1, 3]])
    assert report.records == 2
    assert {kind: count for kind, count in report.wrong.items() if count} == {DUPLICATES: 1}
    assert report.to_dict()["problems"][DUPLICATES]["examples"][0]["index"] == 3


def test_a_message_that_training_would_refuse(processor: NeoProcessor) -> None:
    half = "\ud83d"
    report = check([ListSource([record(None, half), record(None, half)], "list")], processor)
    assert report.wrong[UNREADABLE] == 2
    assert "list, record 0" in report.examples[UNREADABLE][0].message
