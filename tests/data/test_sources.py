import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from neo.data.config import SourceConfig
from neo.data.sources import CorpusSource, Source, SyntheticSource, open_source

RECORD = {"conversations": [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]}


def source(path: Path | list[str], **fields: object) -> Source:
    return open_source(SourceConfig(path=str(path) if isinstance(path, Path) else path, **fields), "mine")


def said(source: Source) -> list[str]:
    """What the assistant says first, record by record."""
    answers = [[m["content"] for m in source[k].messages if m["role"] == "assistant"] for k in range(len(source))]
    return [first for first, *_ in answers]


def test_json_and_jsonl_hold_the_same_records(tmp_path: Path) -> None:
    records = [{**RECORD, "family": str(number)} for number in range(3)]
    (tmp_path / "a.json").write_text(json.dumps(records))
    (tmp_path / "b.jsonl").write_text("\n\n".join(json.dumps(record) for record in records))
    one, other = source(tmp_path / "a.json"), source(tmp_path / "b.jsonl")
    assert len(one) == len(other) == 3
    assert [one[k] for k in range(3)] == [other[k] for k in range(3)]
    assert one[2].family == "2"
    assert one[2].where == f"{tmp_path}/a.json, record 3"
    assert other[2].where == f"{tmp_path}/b.jsonl, line 5"
    with pytest.raises(IndexError):
        one[3]


def test_of_a_large_file_only_offsets_are_held(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": "word " * 200}) + "\n" for _ in range(1000)))
    assert len(pickle.dumps(source(tmp_path / "a.jsonl"))) < 20_000


def test_a_broken_line_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(json.dumps(RECORD).encode() + b"\r\n\n{broken\n")
    broken = source(tmp_path / "b.jsonl")
    assert broken[0].messages
    with pytest.raises(ValueError, match=r"b\.jsonl, line 3: not JSON"):
        broken[1]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("none.json", None, "no such file"),
        ("empty.json", "[]", "no record"),
        ("empty.jsonl", "\n \n", "no record"),
        ("one.json", "{}", "must hold a list"),
        ("lines.json", "{}\n{}", "ending .jsonl"),
        ("records.dat", "[]", "say which by kind"),
        ("not.parquet", "[]", "not a Parquet file"),
        ("not.tar", "[]" * 1000, "not a whole tar without compression"),
        ("names.csv", "picture,caption\na,b\n", "line 1: one column must have the name image or file_name"),
        ("quote.csv", 'image,caption\na,"b\nc,d\n', "row that begins in line 2 is not CSV"),
    ],
)
def test_files_that_are_not_records(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words) as error:
        source(tmp_path / name)
    assert name in str(error.value)


def test_files_of_a_pattern_a_folder_and_a_list_follow_one_another(tmp_path: Path) -> None:
    for name, texts in {"b": "three\nfour", "a": "one\ntwo", "c": ""}.items():
        (tmp_path / f"{name}.txt").write_text(texts)
    (tmp_path / "notes.md").write_text("none of it")
    (tmp_path / "d.jsonl").write_text(json.dumps({"text": "five"}))
    everything = ["one", "two", "three", "four"]
    assert said(source(tmp_path / "[a-c].txt")) == everything
    assert said(source(tmp_path, kind="text")) == everything
    both = source([str(tmp_path / "d.jsonl"), str(tmp_path / "?.txt")])
    assert said(both) == ["five", *everything]
    assert both[3].name == "mine[3]"
    assert both[3].where == f"{tmp_path}/b.txt, line 1"
    with pytest.raises(ValueError, match="kinds json, text; say which by kind"):
        source(tmp_path)
    with pytest.raises(ValueError, match=r"no file of records, which would end in \.tar"):
        source(tmp_path, kind="webdataset")


def test_ranges_as_webdataset_writes_them(tmp_path: Path) -> None:
    for number in range(8, 12):
        (tmp_path / f"part-{number:03}.txt").write_text(f"{number}")
    assert said(source(tmp_path / "part-{008..011}.txt")) == ["8", "9", "10", "11"]
    assert said(source(tmp_path / "part-0{0..0}{8..9}.txt")) == ["8", "9"]
    assert len(source([str(tmp_path / "part-{009..010}.txt"), str(tmp_path / "part-008.txt")])) == 3
    with pytest.raises(ValueError, match=r"part-012\.txt: there is no such file"):
        source(tmp_path / "part-{011..012}.txt")
    with pytest.raises(ValueError, match=r"the range \{011\.\.008\} has no number; write the smaller one first"):
        source(tmp_path / "part-{011..008}.txt")
    (tmp_path / "odd-{1..2}.txt").write_text("a name like any other")
    assert len(source(tmp_path / "odd-{1..2}.txt")) == 1


@pytest.mark.parametrize("name", ["000.tar.gz", "000.TGZ", "000.tar.zst"])
def test_compressed_tars_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(ValueError, match=rf"{name}: .* which a compressed tar does not allow; decompress it to a"):
            source(path)
    (tmp_path / "a.txt").write_text("text")
    assert len(source(tmp_path, kind="text")) == 1


def test_a_record_has_a_limit_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(RECORD)}\n{json.dumps({'text': 'long ' * 100})}\n")
    monkeypatch.setattr("neo.data.sources.spans.MAX_RECORD_BYTES", 200)
    records = source(tmp_path / "a.jsonl")
    assert records[0].messages
    with pytest.raises(ValueError, match=r"a\.jsonl, record 2: it has 513 bytes; at most 200 are read"):
        records[1]


def test_units_of_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\nOne,\nstill one.\n \n\nTwo.\n")
    units = {unit: said(source(tmp_path / "a.txt", text_unit=unit)) for unit in ("line", "paragraph", "document")}
    assert units == {
        "line": ["One,", "still one.", "Two."],
        "paragraph": ["One,\nstill one.", "Two."],
        "document": ["One,\nstill one.\n \n\nTwo."],
    }
    (tmp_path / "latin.txt").write_bytes(b"one\ntw\xf6\n")
    with pytest.raises(ValueError, match=r"latin\.txt, line 2: not text in UTF-8"):
        source(tmp_path / "latin.txt")[1]


def test_a_table_of_pictures(tmp_path: Path) -> None:
    text = '\ufefffile_name;Caption;more\na.jpg;"A cat, ""Tom""\r\non a mat.";1\n\nb.jpg;;2\nc.jpg;A dog.\n'
    (tmp_path / "captions.csv").write_bytes(text.encode())
    table = source(tmp_path)  # the folder holds one table
    asked, caption = table[0].messages
    assert asked["image"] == [f"{tmp_path}/a.jpg"]
    assert caption["content"] == 'A cat, "Tom"\r\non a mat.'
    assert len(table) == 3
    with pytest.raises(ValueError, match=r"captions\.csv, line 5: the record has none of .*; it has file_name"):
        table[1]
    with pytest.raises(ValueError, match=r"captions\.csv, line 6: the row has 2 values for 3 columns"):
        table[2]
    elsewhere = source(tmp_path / "captions.csv", image_root="/elsewhere", caption_prompt="Tell me.")
    assert elsewhere[0].messages[0] == {"role": "user", "content": "Tell me.", "image": ["/elsewhere/a.jpg"]}


def test_a_kept_index_is_used_and_follows_the_file(tmp_path: Path) -> None:
    path, kept = tmp_path / "a.jsonl", tmp_path / "index"
    path.write_text('{"text": "one"}\n')
    first = source(path, index_dir=str(kept))
    (index,) = kept.iterdir()
    np.save(index, np.load(index)[[0, 1, 1]])  # a scan would not find the empty record that this adds
    assert len(source(path, index_dir=str(kept))) == 2
    path.write_text('{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n')
    assert said(source(path, index_dir=str(kept))) == ["one", "two", "three"]
    assert len(list(kept.iterdir())) == 2
    assert len(pickle.dumps(first)) < 2000  # what is kept in a file is not sent to worker processes


def test_an_index_tells_the_units_of_text_apart(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One,\nstill one.\n")
    for unit, records in (("line", 2), ("document", 1)):
        assert len(source(tmp_path / "a.txt", text_unit=unit, index_dir=str(tmp_path / "index"))) == records


@pytest.mark.parametrize("fields", [{}, {"kind": "synthetic", "path": "a"}, {"kind": "json"}])
def test_a_source_is_drawn_or_has_a_path(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="kinds synthetic, corpus, memory have none, any other needs one"):
        SourceConfig(**fields)


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
