"""Exact lengths from heads of files, resumed after a kill, refused when stale."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_checkpoint import TEXTS

from neo.data import index as module
from neo.data.config import DataConfig, SourceConfig
from neo.data.index import RECORD, Index, build_index
from neo.data.mixture import build_mixture, open_sources
from neo.data.sources import ListSource, Source, SyntheticSource, open_source
from neo.processing.image import NeoImageProcessor
from neo.processing.processor import NeoProcessor
from neo.processing.tokenizer import train_tokenizer

ANSWER = {"from": "gpt", "value": "red"}


def make_processor(max_pixels: int = 16384, vocabulary: int = 400) -> NeoProcessor:
    return NeoProcessor(NeoImageProcessor(min_pixels=4096, max_pixels=max_pixels), train_tokenizer(TEXTS, vocabulary))


@pytest.fixture(scope="module")
def processor() -> NeoProcessor:
    return make_processor()


def write(folder: Path, count: int = 100) -> Path:
    """Records with 0 to 3 pictures; some broken, without answer, or with a picture that is not there."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    sides = [tuple(map(int, rng.integers(8, 400, 2))) for _ in range(7)]
    for number, size in enumerate(sides):
        Image.new("RGB", size, "red").save(folder / f"{number}.jpg", exif=_turned(number))
    lines = []
    for k in range(count):
        record: dict[str, Any] = {"conversations": [{"from": "human", "value": "What color? " * (k % 5)}, ANSWER]}
        record["image"] = [f"{(k + n) % 7}.jpg" for n in range(k % 4)]
        if k % 50 == 3:
            record["image"] = "none.jpg"
        if k % 50 == 4:
            record["conversations"] = [{"from": "human", "value": "What?"}]
        lines.append("{broken" if k % 50 == 5 else json.dumps(record))
    (folder / "records.jsonl").write_text("\n".join(lines))
    return folder / "records.jsonl"


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation + 1
    return exif


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_source(SourceConfig(path=str(write(tmp_path_factory.mktemp("data")))), "mine")


@pytest.mark.parametrize("workers", [0, 2])
def test_lengths_are_those_of_encoding(source: Source, processor: NeoProcessor, tmp_path: Path, workers: int) -> None:
    index = build_index(source, processor, tmp_path / "index", workers, progress=False)
    assert len(index) == len(source) == 100
    tokens = 0
    for k in range(len(source)):
        if problem := index.problem(k):
            with pytest.raises(ValueError) as error:
                processor.encode(source[k].messages, share_pixels=True)
            assert problem.endswith(str(error.value))
            assert f".jsonl, line {k + 1}: " in problem
            continue
        encoded = processor.encode(source[k].messages, share_pixels=True)
        assert index.tokens(k) == len(encoded.input_ids)
        assert index.records[k]["labelled"] == (encoded.labels != -100).sum()
        assert len(index.sizes(k)) == len(encoded.image_grid_hw)
        tokens += index.tokens(k)
    assert index.about["problems"] == 6
    assert index.mean_tokens == tokens / 94


def test_a_record_takes_few_bytes(source: Source, processor: NeoProcessor, tmp_path: Path) -> None:
    index = build_index(source, processor, tmp_path, progress=False)
    assert RECORD.itemsize == 21
    head = 300
    assert (tmp_path / "records.npy").stat().st_size <= 21 * len(source) + head
    assert (tmp_path / "sizes.npy").stat().st_size <= 8 * index.about["pictures"] + head


def test_texts_alone(processor: NeoProcessor, tmp_path: Path) -> None:
    index = build_index(ListSource([{"text": "red"}, {"text": "green"}]), processor, tmp_path, progress=False)
    assert index.picture_sizes.shape == (0, 2)
    assert index.sizes(1).shape == (0, 2)


def test_a_killed_run_is_gone_on_with(
    source: Source, processor: NeoProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 16)
    measured: list[int] = []
    measure = module.measure

    def until_killed(source: Source, processor: NeoProcessor, places: Any) -> Any:
        if len(measured) == 5:
            raise KeyboardInterrupt
        measured.append(places[0])
        return measure(source, processor, places)

    monkeypatch.setattr(module, "measure", until_killed)
    with pytest.raises(KeyboardInterrupt):
        build_index(source, processor, tmp_path / "killed", progress=False)
    with pytest.raises(ValueError, match="no finished index"):
        Index(tmp_path / "killed")
    (tmp_path / "killed" / "chunks" / "unfinished.npz").write_bytes(b"half")  # a kill while writing

    def again(source: Source, processor: NeoProcessor, places: Any) -> Any:
        measured.append(places[0])
        return measure(source, processor, places)

    monkeypatch.setattr(module, "measure", again)
    index = build_index(source, processor, tmp_path / "killed", progress=False)
    assert measured == list(range(0, 100, 16))  # each chunk once
    whole = build_index(source, processor, tmp_path / "whole", progress=False)
    assert np.array_equal(index.records, whole.records)
    assert np.array_equal(index.picture_sizes, whole.picture_sizes)
    assert index.about == whole.about
    assert index.problem(3) == whole.problem(3)
    assert sorted(path.name for path in index.folder.iterdir()) == [
        "index.json", "problems.json", "records.npy", "sizes.npy"
    ]  # fmt: skip


def test_a_finished_index_is_left_alone(
    source: Source, processor: NeoProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(source, processor, tmp_path, progress=False)
    before = (tmp_path / "records.npy").stat().st_mtime_ns
    monkeypatch.setattr(module, "measure", None)
    build_index(source, processor, tmp_path, progress=False)
    assert (tmp_path / "records.npy").stat().st_mtime_ns == before


def test_a_stale_index_is_refused_and_made_again(processor: NeoProcessor, tmp_path: Path) -> None:
    path = write(tmp_path / "data", 20)
    config = DataConfig({"mine": SourceConfig(path=str(path))}, index=str(tmp_path / "index"))
    (source,) = open_sources(config)
    index = build_index(source, processor, tmp_path / "index" / "mine", progress=False)
    index.check(source, processor)
    for other, words in (
        (make_processor(max_pixels=8192), "other picture settings than now"),
        (make_processor(vocabulary=300), "other tokenizer than now"),
    ):
        with pytest.raises(ValueError, match=words):
            index.check(source, other)
    os.utime(path, ns=(1, 1))
    with pytest.raises(ValueError, match=r"the index of 'mine' was made with other files than now; make it again with"):
        index.check(source, processor)
    with path.open("a") as file:
        file.write("\n" + json.dumps({"text": "red"}))
    (longer,) = open_sources(config)
    with pytest.raises(ValueError, match="other number of records and files"):
        index.check(longer, processor)
    assert len(build_index(longer, processor, tmp_path / "index" / "mine", progress=False)) == 21


def test_sources_without_files_are_recognised_by_some_of_their_records(processor: NeoProcessor, tmp_path: Path) -> None:
    records = [{"text": "red " * k} for k in range(1, 50)]
    index = build_index(ListSource(records), processor, tmp_path, progress=False)
    index.check(ListSource(records), processor)
    with pytest.raises(ValueError, match="other records than now"):
        index.check(ListSource([{"text": "green"}, *records[1:]]), processor)
    drawn = build_index(SyntheticSource(families={"color": 1}, size=8), processor, tmp_path / "drawn", progress=False)
    drawn.check(SyntheticSource(families={"color": 1}, size=8), processor)
    with pytest.raises(ValueError, match="other records than now"):
        drawn.check(SyntheticSource(families={"word": 1}, size=8), processor)


def test_other_processes_open_the_tables(source: Source, processor: NeoProcessor, tmp_path: Path) -> None:
    index = build_index(source, processor, tmp_path, progress=False)
    sent = pickle.dumps(index)
    assert len(sent) < 500
    assert np.array_equal(pickle.loads(sent).records, index.records)


def test_progress_is_shown_on_stderr(
    source: Source, processor: NeoProcessor, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    build_index(source, processor, tmp_path)
    said = capsys.readouterr()
    assert "100/100" in said.err
    assert not said.out


def test_mistakes(source: Source, processor: NeoProcessor, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/index: the index cannot be written here \(Not a directory\)"):
        build_index(source, processor, tmp_path / "file" / "index", progress=False)
    with pytest.raises(ValueError, match=r"no finished index here; make it with neo data index"):
        Index(tmp_path)


def test_weights_that_count_tokens(processor: NeoProcessor, tmp_path: Path) -> None:
    paths = {"short": tmp_path / "short.jsonl", "long": tmp_path / "long.jsonl"}
    for name, times in (("short", 1), ("long", 30)):
        paths[name].write_text("\n".join(json.dumps({"text": "red " * times}) for _ in range(40)))
    sources = {name: SourceConfig(path=str(path)) for name, path in paths.items()}
    config = DataConfig(sources, weight_by="tokens", index=str(tmp_path / "index"))
    indices = [
        build_index(one, processor, tmp_path / "index" / one.name, progress=False) for one in open_sources(config)
    ]
    tokens = [0, 0]
    mixture = build_mixture(config, 0)
    for k in range(1000):
        number, record = mixture.locate(k)
        tokens[number] += indices[number].tokens(record)
    assert tokens[0] == pytest.approx(tokens[1], rel=0.02)
    sources = {name: SourceConfig(path=str(path), mean_tokens=1 + (name == "long")) for name, path in paths.items()}
    mixture = build_mixture(DataConfig(sources, weight_by="tokens"), 0)
    assert sum(mixture.locate(k)[0] == 0 for k in range(1000)) == 667
    with pytest.raises(ValueError, match=r"how long the records of 'short' are: give data.index, or mean_tokens"):
        build_mixture(DataConfig({"short": SourceConfig(path=str(paths["short"]))}, weight_by="tokens"), 0)
