import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from neo.data.config import SourceConfig
from neo.data.records import Record
from neo.data.sources import ListSource, Source, SyntheticSource, open_source
from neo.data.tools import convert as module
from neo.data.tools.convert import convert
from neo.processing import chat
from neo.processing.picture import load_image, picture_file

FORMS = (".json", ".jsonl", ".parquet", ".tar")
PART = {"type": "image"}
WORDS = {"type": "text", "text": "What?"}


def said(record: Record) -> Any:
    """What a record says, whatever its form: the prompt with pictures by their bytes, and the family."""
    turns, pictures = chat.parse(record.messages)
    return list(chat.pieces(turns)), [picture_file(picture)[0] for picture in pictures], record.family


def opened(path: Path) -> list[Record]:
    source = open_source(SourceConfig(path=str(path)))
    return [source[index] for index in range(len(source))]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def source(records: Callable[..., Source], pictures: Path) -> Source:
    choice = [{"from": "human", "value": "<image> or <image>?"}, {"from": "gpt", "value": "The <image> first.\n"}]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "A "}, {"type": "text", "text": "cat."}]}
    return records(
        [
            {"image": "photos/a.jpg", "question": "Why?", "answer": "Because."},
            {"images": ["photos/b.png", "photos/a.jpg"], "conversations": choice, "family": "choice"},
            {"messages": [{"role": "user", "content": [PART, WORDS]}, answer], "images": [str(pictures / "a.jpg")]},
            {
                "messages": [
                    {"role": "system", "content": "Be brief. Größe: 12 €, 日本"},
                    {"role": "user", "content": "And <image>\u2028this?"},
                    {"role": "assistant", "content": ""},
                    {"role": "user", "content": [WORDS, PART, PART]},
                    {"role": "assistant", "content": "Yes."},
                ],
                "images": ["photos/a.jpg", "photos/b.png", "photos/a.jpg"],
            },
            {"text": "Only words."},
        ]
    )


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
def test_every_form_keeps_every_conversation(first: str, second: str, source: Source, tmp_path: Path) -> None:
    expected = [said(source[index]) for index in range(len(source))]
    assert convert([source], tmp_path / f"first{first}") == (5, 0)
    assert [said(record) for record in opened(tmp_path / f"first{first}")] == expected
    (tmp_path / "else").mkdir()
    again = open_source(SourceConfig(path=str(tmp_path / f"first{first}")))
    assert convert([again], tmp_path / "else" / f"second{second}") == (5, 0)
    assert [said(record) for record in opened(tmp_path / "else" / f"second{second}")] == expected
    assert not [name for name in files(tmp_path) if "partial" in name]


@pytest.mark.parametrize("form", [".jsonl", ".tar"])
def test_messages_stay_as_they_are(form: str, source: Source, tmp_path: Path) -> None:
    literal = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Is <image> a tag?"}]}]}
    literal["messages"].append({"role": "assistant", "content": "Yes."})
    convert([source, ListSource([literal])], tmp_path / f"a{form}")
    contents = [[message["content"] for message in record.messages] for record in opened(tmp_path / f"a{form}")]
    assert contents[0] == ["Why?", "Because."]
    assert [part["type"] for part in contents[3][3]] == ["text", "image", "image"]
    assert contents[5][0] == [{"type": "text", "text": "Is <image> a tag?"}]


@pytest.mark.parametrize("form", [".json", ".parquet"])
def test_words_that_a_form_would_take_for_a_picture_are_refused(form: str, tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Is <image> a tag?"}]},
        {"role": "assistant", "content": "Yes."},
    ]
    with pytest.raises(ValueError, match=r"list, record 0.*<image> as plain words"):
        convert([ListSource([{"messages": turns}], "list")], tmp_path / f"a{form}")
    assert files(tmp_path) == set()


def test_paths_are_told_anew_and_files_left_where_they_are(source: Source, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    output = tmp_path / "deep" / "er" / "a.json"
    convert([source], output)
    records = json.loads(output.read_text(encoding="utf-8"))
    assert records[0]["image"] == "../../photos/a.jpg"
    assert records[1]["image"] == ["../../photos/b.png", "../../photos/a.jpg"]
    assert records[1]["conversations"][0] == {"from": "human", "value": "<image> or <image>?"}
    assert "image" not in records[4]
    assert files(output.parent) == {"a.json"}


def test_addresses_stay_addresses(tmp_path: Path) -> None:
    images = ["https://example.org/a.jpg", "data:image/png;base64,AAAA"]
    source = ListSource([{"images": images, "question": "Same?", "answer": "No."}], "list")
    convert([source], tmp_path / "a.jsonl")
    assert json.loads((tmp_path / "a.jsonl").read_text())["images"] == images
    with pytest.raises(ValueError, match=r"list, record 0.*https://example.org/a.jpg.*not fetched"):
        convert([source], tmp_path / "a.tar")


def test_pictures_without_a_file_get_one(tmp_path: Path) -> None:
    drawn = SyntheticSource(size=3, families={"color": 1.0})
    array = np.full((40, 30), 7, np.uint8)
    convert([drawn, ListSource([{"caption": "Dark.", "image": array}])], tmp_path / "a.jsonl")
    names = {f"a.jsonl.pictures/00000/{number:09}.png" for number in range(4)}
    assert {name for name in files(tmp_path) if name.endswith(".png")} == names
    again = opened(tmp_path / "a.jsonl")
    for index in range(3):
        picture = drawn[index].messages[0]["content"][0]["image"]
        assert load_image(again[index].messages[0]["content"][0]["image"]).tobytes() == picture.tobytes()
    assert load_image(again[3].messages[0]["image"][0]).getpixel((0, 0)) == (7, 7, 7)


def test_tar_and_parquet_are_as_others_write_them(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP_ROWS", 2)
    convert([source], tmp_path / "a.parquet")
    footer = pyarrow.parquet.read_metadata(tmp_path / "a.parquet")
    assert [footer.row_group(number).num_rows for number in range(footer.num_row_groups)] == [2, 2, 1]
    image = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()[1]["images"][0]
    assert image == {"bytes": (tmp_path / "photos" / "b.png").read_bytes(), "path": "b.png"}
    monkeypatch.setattr(module, "GROUP_BYTES", 1)
    convert([source], tmp_path / "a.parquet", overwrite=True)
    assert pyarrow.parquet.read_metadata(tmp_path / "a.parquet").num_row_groups == 5
    convert([source], tmp_path / "a.tar")
    with module.tarfile.open(tmp_path / "a.tar") as tar:
        names = tar.getnames()
    assert names[:5] == ["000000000.json", "000000000.jpg", "000000001.json", "000000001.0.png", "000000001.1.jpg"]


def stop(items: Iterable[Any], total: int) -> Iterable[Any]:
    for number, item in enumerate(items):
        if number == 2:
            raise KeyboardInterrupt
        yield item


@pytest.mark.parametrize("form", FORMS)
def test_a_file_appears_whole_or_not_at_all(form: str, tmp_path: Path) -> None:
    source, output = SyntheticSource(size=5), tmp_path / f"a{form}"
    with pytest.raises(KeyboardInterrupt):
        convert([source], output, track=stop)
    assert files(tmp_path) == set()
    convert([SyntheticSource(size=2)], output)
    before = {name: (tmp_path / name).read_bytes() for name in files(tmp_path) if (tmp_path / name).is_file()}
    with pytest.raises(ValueError, match=r"there already; --overwrite"):
        convert([source], output)
    broken = ListSource([{"caption": "Noise.", "image": b"no picture"}], "list")
    with pytest.raises(ValueError, match=r"list, record 0.*not a picture file"):
        convert([source, broken], output, overwrite=True)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert convert([source], output, overwrite=True) == (5, 0)
    assert len(opened(output)) == 5
    assert not [name for name in files(tmp_path) if "partial" in name]


def test_bad_records_are_named_and_left_out_if_wanted(
    source: Source, records: Callable[..., Source], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = records(["{broken", {"image": "none.jpg", "caption": "Nothing."}, {"text": "Words."}], "bad")
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 1: not JSON"):
        convert([source, bad], tmp_path / "a.tar")
    assert convert([source, bad], tmp_path / "a.tar", skip_bad=True) == (6, 2)
    assert [said(record)[0][1].text for record in opened(tmp_path / "a.tar")][-1] == "assistant\nWords."
    assert "bad.jsonl, line 1" in caplog.messages[0]
    assert "none.jpg" in caplog.messages[1]


def test_pictures_that_records_use_are_not_written_over(tmp_path: Path) -> None:
    convert([SyntheticSource(size=2, families={"color": 1.0})], tmp_path / "a.jsonl")
    before = files(tmp_path)
    more = SyntheticSource(size=1, families={"color": 1.0})
    with pytest.raises(ValueError, match="choose another name"):
        convert([open_source(SourceConfig(path=str(tmp_path / "a.jsonl"))), more], tmp_path / "a.jsonl", overwrite=True)
    assert files(tmp_path) == before
    assert len(opened(tmp_path / "a.jsonl")) == 2


@pytest.mark.parametrize(("name", "words"), [("a.csv", "ending must be one of .json"), ("none/a.tar", "no folder")])
def test_outputs_that_cannot_be(name: str, words: str, source: Source, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        convert([source], tmp_path / name)


def test_only_chosen_records_are_written(source: Source, tmp_path: Path) -> None:
    assert convert([source], tmp_path / "a.tar", indices=[[4]]) == (1, 0)
