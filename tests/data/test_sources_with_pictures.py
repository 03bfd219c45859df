"""Sources that hold their pictures: Parquet, tars, data sets; and that all of them tell the same records."""

import io
import json
import pickle
import sys
import tarfile
import zlib
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from neo.data.config import SourceConfig
from neo.data.records import Record
from neo.data.sources import ListSource, Source, open_source, parquet
from neo.processing.picture import load_image


def source(path: Path, **fields: Any) -> Source:
    return open_source(SourceConfig(path=str(path), **fields), "mine")


def picture(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(file, "PNG")
    return file.getvalue()


RED, BLUE = picture("red"), picture("blue")
TEXTS = [{"user": "What?", "assistant": "Red."}, {"user": "Sure?", "assistant": "Yes."}]


def write_tar(path: Path, members: Mapping[str, bytes], format: int = tarfile.GNU_FORMAT) -> None:
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_parquet(path: Path, records: list[dict[str, Any]], row_group_size: int = 2) -> None:
    names = dict.fromkeys(name for record in records for name in record)
    table = pyarrow.Table.from_pylist([{name: record.get(name) for name in names} for record in records])
    pyarrow.parquet.write_table(table, path, row_group_size=row_group_size)


def test_hub_style_parquet(tmp_path: Path) -> None:
    records = [{"images": [{"bytes": RED, "path": None}], "texts": TEXTS, "extra": number} for number in range(5)]
    write_parquet(tmp_path / "0.parquet", records)
    write_parquet(tmp_path / "1.parquet", [{**records[0], "images": [{"bytes": None, "path": "b.png"}]}])
    hub = source(tmp_path)
    assert len(hub) == 6
    assert hub[4].messages[0] == {"role": "user", "content": "What?", "image": [RED]}
    assert [message["content"] for message in hub[4].messages] == ["What?", "Red.", "Sure?", "Yes."]
    assert hub[5].messages[0]["image"] == [f"{tmp_path}/b.png"]
    assert hub[4].where == f"{tmp_path}/0.parquet, row 4 (from 0)"


def test_parquet_with_raw_bytes_and_parts(tmp_path: Path) -> None:
    asked = [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": [{"type": "text", "text": "Red."}]}]
    write_parquet(tmp_path / "a.parquet", [{"messages": turns, "images": [RED]}])
    content = source(tmp_path / "a.parquet")[0].messages[0]["content"]
    assert content == [{"type": "image", "image": RED}, {"type": "text", "text": "What?"}]


def test_row_groups_are_kept_up_to_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "a.parquet", [{"image": RED, "caption": str(number)} for number in range(8)])
    read: list[int] = []
    plain = pyarrow.parquet.ParquetFile.read_row_group
    monkeypatch.setattr(
        pyarrow.parquet.ParquetFile,
        "read_row_group",
        lambda file, number, *rest, **more: read.append(number) or plain(file, number, *rest, **more),
    )
    captions = source(tmp_path / "a.parquet")
    order = [0, 1, 7, 0, 6]
    assert [captions[k].messages[1]["content"] for k in order] == [str(k) for k in order]
    assert read == [0, 3]
    monkeypatch.setattr(parquet, "CACHE_BYTES", 1)
    captions = pickle.loads(pickle.dumps(captions))
    assert [captions[k].messages[1]["content"] for k in order] == [str(k) for k in order]
    assert read == [0, 3, 0, 3, 0, 3]


def test_worker_processes_read_what_this_one_reads(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"image": RED, "caption": str(number)} for number in range(6)])
    write_tar(tmp_path / "b.tar", {"0.txt": b"Blue.", "0.png": BLUE})
    both = open_source(SourceConfig(path=[str(tmp_path / "a.parquet"), str(tmp_path / "b.tar")]), "mine")
    here = [both[k] for k in range(7)]
    assert list(DataLoader(both, batch_size=None, num_workers=2)) == here


def test_parquet_without_a_column_of_records(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [{"url": "a", "width": 1}])
    with pytest.raises(ValueError, match=r"a\.parquet: no column is one of .*; the columns are url, width"):
        source(tmp_path / "a.parquet")


def test_a_damaged_row_group_is_a_broken_record(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, [{"text": "word " * 1000 + str(number)} for number in range(4)])
    data = bytearray(path.read_bytes())
    data[4:60] = bytes(56)
    path.write_bytes(data)
    damaged = source(path)
    assert damaged[3].messages
    with pytest.raises(ValueError, match=r"a\.parquet, row 1 \(from 0\): its row group cannot be read"):
        damaged[1]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_img2dataset(tmp_path: Path, format: int) -> None:
    folder = "a-long-folder-name/" * 6 if format != tarfile.USTAR_FORMAT else ""
    metadata = json.dumps({"caption": "Red.", "url": "http://a", "status": "success", "width": 40}).encode()
    members = {f"{folder}000.jpg": RED, f"{folder}000.txt": b"Red.\n", f"{folder}000.json": metadata}
    members |= {f"{folder}001.png": BLUE, f"{folder}001.json": metadata, "._001.json": b"hidden", "002.txt": b"None"}
    write_tar(tmp_path / "0.tar", members, format)
    tar = source(tmp_path / "*.tar")
    assert len(tar) == 3
    assert [m["content"] for m in tar[0].messages] == ["Describe the image.", "Red."]
    assert tar[0].messages[0]["image"] == [RED]
    assert tar[1].messages[0]["image"] == [BLUE]
    assert tar[1].where == f"{tmp_path}/0.tar, sample {folder}001"
    with pytest.raises(ValueError, match=r"0\.tar, sample 002: 'caption' needs a picture"):
        tar[2]


def test_a_tar_with_conversations_and_several_pictures(tmp_path: Path) -> None:
    record = {"image": ["x.png", "y.png"], "conversations": [{"from": "human", "value": "<image> or <image>?"}]}
    record["conversations"].append({"from": "gpt", "value": "The first."})
    members = {"7.0.png": BLUE, "7.1.png": RED, "7.json": json.dumps(record).encode(), "8.json": b"[]", "9.json": b"{"}
    write_tar(tmp_path / "a.tar", members)
    tar = source(tmp_path / "a.tar")
    assert tar[0].messages[0]["image"] == [BLUE, RED]
    with pytest.raises(ValueError, match=r"a\.tar, sample 8, 8\.json: a record must be an object"):
        tar[1]
    with pytest.raises(ValueError, match=r"a\.tar, sample 9, 9\.json: not JSON"):
        tar[2]


def test_several_processes_open_tars_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes: list[int] = []
    pool = "neo.data.sources.ProcessPoolExecutor"
    monkeypatch.setattr(pool, lambda count: processes.append(count) or ProcessPoolExecutor(count))
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", {f"{k}.{end}": RED for k in range(number + 1) for end in ("jpg", "json")})
    config = SourceConfig(path=str(tmp_path / "*.tar"))
    one, several = open_source(config, "mine"), open_source(config, "mine", workers=2)
    assert processes == [2]
    assert len(one) == len(several) == 6
    for part, other in zip(one.parts, several.parts, strict=True):
        assert part.path == other.path
        assert all(part.span(k) == other.span(k) for k in range(len(part)))
    (tmp_path / "1.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(ValueError, match=r"^\S+/1\.tar: not a whole tar without compression"):
        open_source(config, "mine", workers=2)


def test_a_tar_that_was_cut_short_or_compressed(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {f"{number}.jpg": RED * 100 for number in range(3)})
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: len(RED) * 150])
    with pytest.raises(ValueError, match=r"not a whole tar without compression .* after sample 2"):
        source(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "b.tar", "w:gz"):
        pass
    with pytest.raises(ValueError, match=r"b\.tar: not a whole tar without compression"):
        source(tmp_path / "b.tar")


def test_data_sets_saved_to_disk(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
    )
    columns = {"image": [{"bytes": RED}, {"bytes": BLUE}], "question": ["What?"] * 2, "answer": ["Red.", "Blue."]}
    dataset = datasets.Dataset.from_dict({**columns}, features=features)
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(str(tmp_path / "both"))
    saved, given = source(tmp_path / "both" / "train"), ListSource(dataset.select([1]))
    assert [m["content"] for m in saved[1].messages] == ["What?", "Blue."]
    assert saved[1].messages[0]["image"] == [BLUE]  # the file's bytes: nothing was decoded
    assert given[0].messages == saved[1].messages
    with pytest.raises(ValueError, match="both has the splits train, test"):
        source(tmp_path / "both")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no data set was saved in this folder"):
        source(tmp_path / "empty", kind="datasets")
    changed = dataset.with_transform(lambda rows: {**rows, "answer": ["Other."] * len(rows["answer"])})
    assert ListSource(changed)[0].messages[1]["content"] == "Other."


def test_lists_of_records() -> None:
    image = Image.new("RGB", (2, 2))
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "Nothing."}]
    given = ListSource([{"image": image, "conversations": turns}, {"image": "a.jpg", "messages": turns}, {}], "given")
    assert given[0].messages[0]["image"] == [image]
    assert given[1].messages[0]["image"] == ["a.jpg"]
    with pytest.raises(ValueError, match=r"^given, record 2 \(from 0\): the record has none of"):
        given[2]
    with pytest.raises(ValueError, match="has the splits train"):
        ListSource({"train": []})
    with pytest.raises(ValueError, match="dataset is a generator"):
        ListSource(turn for turn in turns)


@pytest.mark.parametrize(
    ("module", "name", "words"), [("pyarrow.parquet", "a.parquet", "neo-vlm"), ("datasets", "", "pip install datasets")]
)
def test_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str, words: str) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=words):
        source(tmp_path / name, kind=None if name else "datasets")


def test_limits_hold_for_pictures_inside(tmp_path: Path) -> None:
    header = bytearray(RED)
    header[16:24] = (100_000).to_bytes(4) * 2  # width and height of a bomb
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4)
    write_parquet(tmp_path / "a.parquet", [{"image": bytes(header), "caption": "Large."}])
    (content,) = source(tmp_path / "a.parquet")[0].messages[0]["image"]
    with pytest.raises(ValueError, match="decompression bomb"):
        load_image(content)


texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)
turns = st.lists(st.tuples(texts, texts), min_size=1, max_size=3)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """A record in one of four forms with 0 to 3 pictures, some of them with placeholders for its pictures."""
    pictures = draw(st.lists(st.sampled_from([RED, BLUE]), max_size=3))
    pairs = draw(turns)
    form = draw(st.sampled_from(["conversations", "messages", "texts", "question"]))
    if draw(st.booleans()):
        pairs[-1] = ("<image>" * len(pictures) + pairs[-1][0], pairs[-1][1])
    record: dict[str, Any] = {"images": pictures, "family": draw(texts)}
    if form == "conversations":
        record[form] = [turn for q, a in pairs for turn in ({"from": "human", "value": q}, {"from": "gpt", "value": a})]
    elif form == "messages":
        record[form] = [
            turn for q, a in pairs for turn in ({"role": "user", "content": q}, {"role": "assistant", "content": a})
        ]
    elif form == "texts":
        record[form] = [{"user": q, "assistant": a} for q, a in pairs]
    else:
        record |= {"question": pairs[-1][0], "answer": "So: " + pairs[-1][1]}
    return record


def with_bytes(record: Record) -> Record:
    """The record with picture files in place of their paths."""
    for message in record.messages:
        if "image" in message:
            message["image"] = [one if isinstance(one, bytes) else Path(one).read_bytes() for one in message["image"]]
    return record


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records(), min_size=1, max_size=5))
def test_every_kind_tells_the_same_records(tmp_path: Path, written: list[dict[str, Any]]) -> None:
    names = {RED: "red.png", BLUE: "blue.png"}
    for content, name in names.items():
        (tmp_path / name).write_bytes(content)
    with_paths = [{**record, "images": [names[one] for one in record["images"]]} for record in written]
    members: dict[str, bytes] = {}
    for number, record in enumerate(written):
        members |= {f"{number}.{place}.png": content for place, content in enumerate(record["images"])}
        members[f"{number}.json"] = json.dumps({**record, "images": None}).encode()
    (tmp_path / "a.json").write_text(json.dumps(with_paths))
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps(record, ensure_ascii=False) for record in with_paths), encoding="utf-8"
    )
    write_parquet(tmp_path / "a.parquet", written)
    write_tar(tmp_path / "a.tar", members)
    sources = [source(tmp_path / f"a.{ending}") for ending in ("json", "jsonl", "parquet", "tar")]
    sources += [pickle.loads(pickle.dumps(one)) for one in sources]
    expected = ListSource(written, "mine")
    for one in sources:
        assert len(one) == len(expected)
        for index in reversed(range(len(expected))):
            assert with_bytes(one[index]) == expected[index]
