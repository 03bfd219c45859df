import json
from pathlib import Path

import pytest

from neo.data.sources import CorpusSource, JsonSource, SyntheticSource

RECORD = {"conversations": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]}


def test_json_and_jsonl_hold_the_same_records(tmp_path: Path) -> None:
    records = [{**RECORD, "family": str(number)} for number in range(3)]
    (tmp_path / "a.json").write_text(json.dumps(records))
    (tmp_path / "b.jsonl").write_text("\n\n".join(json.dumps(record) for record in records))
    one, other = JsonSource(tmp_path / "a.json", "same"), JsonSource(tmp_path / "b.jsonl", "same")
    assert len(one) == len(other) == 3
    assert [one[k] for k in range(3)] == [other[k] for k in range(3)]
    assert one[2].family == "2"


def test_a_broken_line_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(json.dumps(RECORD) + "\n\n{broken\n")
    source = JsonSource(tmp_path / "b.jsonl")
    assert source[0].messages
    with pytest.raises(ValueError, match=r"b\.jsonl, line 3: not JSON"):
        source[1]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("none.json", None, "no such file"),
        ("empty.json", "[]", "no record"),
        ("one.json", "{}", "must hold a list"),
        ("lines.json", "{}\n{}", "ending .jsonl"),
    ],
)
def test_files_that_are_not_records(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        JsonSource(tmp_path / name)
    assert name in str(error.value)


def test_synthetic_source_is_pure() -> None:
    source = SyntheticSource(seed=3, families={"color": 1.0}, size=10)
    assert len(source) == 10
    first, again = source[4], source[4]
    assert first.family == "color"
    pictures = [record.messages[0]["content"][0]["image"] for record in (first, again)]
    assert pictures[0].tobytes() == pictures[1].tobytes()


def test_corpus_text_is_all_learned() -> None:
    (message,) = CorpusSource(seed=1)[0].messages
    assert message["role"] == "assistant"
    assert message["content"]
