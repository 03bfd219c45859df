"""Real samples through a real processor: batches depend neither on workers nor on ranks, and resume exactly."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_checkpoint import TEXTS

from neo.data.config import DataConfig, SourceConfig
from neo.data.index import build_index
from neo.data.loader import Batch, PackedLoader, build_loader
from neo.data.mixture import Mixture, build_mixture
from neo.data.packing import Packer
from neo.data.records import Record
from neo.data.sources import Source, SyntheticSource, open_source
from neo.processing.image import NeoImageProcessor
from neo.processing.processor import NeoProcessor
from neo.processing.tokenizer import train_tokenizer

LENGTH = 384
RECORDS = 28


@pytest.fixture(scope="module")
def processor() -> NeoProcessor:
    return NeoProcessor(NeoImageProcessor(min_pixels=4096, max_pixels=16384), train_tokenizer(TEXTS, 400))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, processor: NeoProcessor) -> Path:
    """records.jsonl with pictures of many sizes and texts, and an index of it."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    records = []
    for k in range(RECORDS):
        record = {
            "conversations": [{"from": "human", "value": "What? " * (k % 7)}, {"from": "gpt", "value": "red " * k}]
        }
        if k % 4:
            names = [f"{k}-{number}.png" for number in range(k % 4)]
            for name in names:
                Image.fromarray(rng.integers(0, 256, (*rng.integers(8, 90, 2), 3), dtype=np.uint8)).save(folder / name)
            record["image"] = names
        records.append(record)
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    build_index(source_of(folder), processor, folder / "index" / "mine")
    return folder


def source_of(folder: Path) -> Source:
    return open_source(SourceConfig(path=str(folder / "records.jsonl")), "mine")


def config(folder: Path, index: bool = False, **fields: object) -> DataConfig:
    return DataConfig(
        {"mine": SourceConfig(path=str(folder / "records.jsonl"), max_epochs=2)},
        index=str(folder / "index") if index else None,
        **{"max_seq_length": LENGTH, "rows_per_batch": 4, "lookahead_rows": 6, "workers": 0, **fields},
    )


def drawn(processor: NeoProcessor, workers: int = 0, source: Source | None = None, **ranks: int) -> PackedLoader:
    source = source or SyntheticSource(families={"color": 2.0, "text": 1.0})
    return PackedLoader(Mixture([source], [1.0], 0), processor, Packer(LENGTH, 2, 4), workers, **ranks)


def same(one: Batch, other: Batch) -> bool:
    return (
        one.names == other.names
        and one.inputs.keys() == other.inputs.keys()
        and all(torch.equal(value, other.inputs[name]) for name, value in one.inputs.items())
    )


def of_files(
    processor: NeoProcessor, folder: Path, rank: int = 0, world_size: int = 1, **fields: object
) -> PackedLoader:
    data = config(folder, **fields)
    return build_loader(data, build_mixture(data, seed=0), processor, rank, world_size)


def test_workers_do_not_change_batches(processor: NeoProcessor) -> None:
    alone = list(islice(drawn(processor), 8))
    helped = list(islice(drawn(processor, workers=2), 8))
    assert all(same(one, other) for one, other in zip(alone, helped, strict=True))


def test_a_batch_tells_sources_and_families(processor: NeoProcessor, folder: Path) -> None:
    drawings = SyntheticSource(families={"color": 1.0}, name="drawn")
    mixture = Mixture([drawings, source_of(folder)], [1.0, 1.0], 0)
    batch = next(iter(PackedLoader(mixture, processor, Packer(LENGTH, 2, 4))))
    assert batch.sources == [name.partition("[")[0] for name in batch.names]
    assert {*zip(batch.sources, batch.families, strict=True)} == {("drawn", "color"), ("mine", "")}


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_gives_the_next_batches(processor: NeoProcessor, workers: int) -> None:
    whole = drawn(processor)
    batches = iter(whole)
    for _ in range(3):
        next(batches)
    state = json.loads(json.dumps(whole.state_dict()))
    resumed = drawn(processor, workers)
    resumed.load_state_dict(state)
    assert all(same(next(batches), other) for other in islice(resumed, 4))


@pytest.mark.parametrize(("index", "workers"), [(False, 0), (False, 2), (True, 0), (True, 2)])
def test_files_with_and_without_index_and_workers(
    processor: NeoProcessor, folder: Path, index: bool, workers: int
) -> None:
    """The same batches to the end of two epochs, and from any of them on."""
    expected = list(of_files(processor, folder))
    names = sorted(name for batch in expected for name in batch.names)
    assert names == sorted([f"mine[{k}]" for k in range(RECORDS)] * 2)
    loader = of_files(processor, folder, index=index, workers=workers)
    states = []
    for batch, other in zip(expected, loader, strict=True):
        assert same(batch, other)
        states.append(loader.state_dict())
    for number in (len(expected) // 2, len(expected) - 1):
        loader.load_state_dict(states[number])
        assert [batch.names for batch in loader] == [batch.names for batch in expected[number + 1 :]]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_by_samples(processor: NeoProcessor, folder: Path, workers: int) -> None:
    """Steps of an epoch are ceil(records / rows_per_batch); rows are as few and as long as need be."""
    loader = of_files(processor, folder, batch_by="samples", rows_per_batch=3, workers=workers)
    batches, states = [], []
    for batch in loader:
        batches.append(batch)
        states.append(loader.state_dict())
    assert [len(batch.names) for batch in batches] == [*[3] * 9, 1, *[3] * 9, 1]
    for epoch in (batches[:10], batches[10:]):
        assert sorted(name for batch in epoch for name in batch.names) == sorted(f"mine[{k}]" for k in range(RECORDS))
    for batch in batches:
        documents = batch.inputs["document_ids"]
        length = documents.shape[1]
        assert length % 16 == 0
        assert length <= LENGTH
        assert (documents >= 0).any(1).all()
        assert (documents[:, -16:] >= 0).any()
        assert int((documents >= 0).sum()) == batch.tokens
    for number in (3, 9, 12):
        resumed = of_files(processor, folder, batch_by="samples", rows_per_batch=3)
        resumed.load_state_dict(states[number])
        assert all(same(one, other) for one, other in zip(resumed, batches[number + 1 :], strict=True))


def test_ranks_share_a_batch_by_samples(processor: NeoProcessor, folder: Path) -> None:
    fields = {"batch_by": "samples", "rows_per_batch": 4}
    alone = of_files(processor, folder, **fields)
    ranks = [of_files(processor, folder, rank, 2, **fields) for rank in range(2)]
    for batch, *parts in zip(alone, *ranks, strict=True):
        assert sorted(name for part in parts for name in part.names) == sorted(batch.names)
        assert [len(part.inputs["input_ids"]) for part in parts] == [2, 2]


@pytest.mark.parametrize("index", [False, True])
def test_any_number_of_ranks_sees_the_same_global_batches(processor: NeoProcessor, folder: Path, index: bool) -> None:
    expected = list(of_files(processor, folder))
    for world_size in (2, 4):
        ranks = [of_files(processor, folder, rank, world_size, index=index) for rank in range(world_size)]
        states = []
        for batch, *parts in zip(expected, *ranks, strict=True):
            assert [name for part in parts for name in part.names] == batch.names
            for name in ("input_ids", "labels", "document_ids"):
                assert torch.equal(torch.cat([part.inputs[name] for part in parts]), batch.inputs[name])
            pixels = [part.inputs["pixel_values"] for part in parts if "pixel_values" in part.inputs]
            assert torch.equal(torch.cat(pixels), batch.inputs["pixel_values"])
            states.append([rank.state_dict() for rank in ranks])
        assert all(state == states[2][0] for state in states[2])
        alone = of_files(processor, folder)
        alone.load_state_dict(states[2][0])
        assert [batch.names for batch in alone] == [batch.names for batch in expected[3:]]


def test_each_rank_decodes_its_own_pictures_only(
    processor: NeoProcessor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = processor.encode

    def counted(messages, **options):
        encoded.append(messages)
        return encode(messages, **options)

    monkeypatch.setattr(processor, "encode", counted)
    for index in (True, False):
        encoded.clear()
        batches = list(of_files(processor, folder, 1, 4, index=index))
        own = sum(len(batch.names) for batch in batches)
        texts = RECORDS * 2 // 4  # without an index, a text is encoded where it is measured
        assert own < RECORDS
        assert len(encoded) <= own + (0 if index else texts)


def test_documents_that_wait_hold_no_more_pixels_than_agreed(
    processor: NeoProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn pictures are encoded where they are measured; beyond a limit they are drawn again in their turn."""
    expected = list(islice(drawn(processor), 6))
    encoded = []
    encode = processor.encode
    monkeypatch.setattr(processor, "encode", lambda *given, **options: encoded.append(1) or encode(*given, **options))
    monkeypatch.setattr("neo.data.schedule.HELD_PATCHES", 100)
    assert all(same(one, other) for one, other in zip(expected, islice(drawn(processor), 6), strict=True))
    again = len(encoded)
    monkeypatch.setattr("neo.data.schedule.HELD_PATCHES", 10**9)
    encoded.clear()
    list(islice(drawn(processor), 6))
    assert len(encoded) < again


def test_sources_with_and_without_index_together(processor: NeoProcessor, folder: Path) -> None:
    sources = {
        "mine": SourceConfig(path=str(folder / "records.jsonl"), max_epochs=1),
        "drawn": SourceConfig(kind="synthetic", families={"color": 1}, size=30, max_epochs=1),
    }

    def names(index: str | None, workers: int = 0) -> list[list[str]]:
        data = DataConfig(
            sources, index=index, max_seq_length=LENGTH, rows_per_batch=2, lookahead_rows=3, workers=workers
        )
        return [batch.names for batch in build_loader(data, build_mixture(data, seed=0), processor)]

    assert names(None) == names(str(folder / "index")) == names(str(folder / "index"), workers=2)


def test_steps_are_counted_beforehand(processor: NeoProcessor, folder: Path) -> None:
    loader = of_files(processor, folder, index=True)
    assert loader.steps() == len(list(loader)) == len(list(of_files(processor, folder)))
    with pytest.raises(ValueError, match="needs an index"):
        of_files(processor, folder).steps()
    with pytest.raises(ValueError, match="has no end"):
        drawn(processor).steps()


def test_the_last_batch_is_filled_up_with_padding(processor: NeoProcessor, folder: Path) -> None:
    last = list(of_files(processor, folder, rows_per_batch=16))[-1]
    assert last.inputs["input_ids"].shape == (16, LENGTH)
    assert (last.inputs["document_ids"][-1] == -1).all()
    assert (last.inputs["labels"][-1] == -100).all()


def test_a_batch_is_laid_out_as_the_network_reads_it(processor: NeoProcessor) -> None:
    batch = next(iter(drawn(processor)))
    inputs = batch.inputs
    assert {name: inputs[name].shape for name in ("input_ids", "labels", "document_ids")} == dict.fromkeys(
        ("input_ids", "labels", "document_ids"), torch.Size([2, LENGTH])
    )
    padding = inputs["document_ids"] == -1
    assert batch.tokens == (~padding).sum()
    assert (inputs["labels"][padding] == -100).all()
    assert batch.labelled == (inputs["labels"] != -100).sum()
    learned = inputs["labels"] != -100
    assert torch.equal(inputs["labels"][learned], inputs["input_ids"][learned])
    image_tokens = (inputs["input_ids"] == processor.image_token_id).sum()
    assert image_tokens * 4 == len(inputs["pixel_values"]) == inputs["image_grid_hw"].prod(-1).sum()


@pytest.mark.parametrize("index", [False, True])
def test_pictures_follow_their_placeholders(processor: NeoProcessor, folder: Path, index: bool) -> None:
    """The pixels of each row's pictures are those of the records in it, in order."""
    loader = of_files(processor, folder, index=index, workers=1)
    source = source_of(folder)
    for batch in islice(loader, 3):
        records = [source[int(name.partition("[")[2][:-1])] for name in batch.names]
        expected = [processor.encode(record.messages, share_pixels=True) for record in records]
        assert torch.equal(
            batch.inputs["pixel_values"], torch.cat([e.pixel_values for e in expected if len(e.pixel_values)])
        )
        tokens = batch.inputs["input_ids"][batch.inputs["document_ids"] != -1]
        assert torch.equal(tokens, torch.cat([one.input_ids for one in expected]))


class Broken:
    """Good, without an answer, and with a picture that is not there."""

    name = "broken"

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Record:
        question = {"role": "user", "content": "What?"}
        answer = {"role": "assistant", "content": "That."}
        missing = {"role": "user", "content": "What?", "image": "/none.png"}
        return Record([[question, answer], [question], [missing, answer]][index], self.name, index)


def test_bad_records_stop_the_run_with_their_names(processor: NeoProcessor, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"more than max_bad_fraction=0\.01 allows"):
        next(iter(drawn(processor, source=Broken())))
    assert "left out broken[" in caplog.text


@pytest.mark.parametrize("index", [False, True])
def test_pictures_that_cannot_be_decoded(
    processor: NeoProcessor, tmp_path: Path, caplog: pytest.LogCaptureFixture, index: bool
) -> None:
    """Their heads are whole, so that they are packed; then they leave a gap, are named, counted and bounded."""
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]
    for name in ("whole.png", "cut.png"):
        Image.new("RGB", (64, 64), "red").save(tmp_path / name)
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    records = [{"image": "cut.png" if k == 7 else "whole.png", "conversations": turns} for k in range(20)]
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    if index:
        build_index(source_of(tmp_path), processor, tmp_path / "index" / "mine")
    loader = of_files(processor, tmp_path, index=index, max_seq_length=64, max_bad_fraction=0.02)
    batches = list(loader)
    assert sorted(name for batch in batches for name in batch.names) == sorted(
        f"mine[{k}]" for k in range(20) if k != 7 for _ in "12"
    )
    assert loader.state_dict()["unreadable"] == 2
    assert f"left out mine[7]: {tmp_path}/records.jsonl, line 8: {tmp_path}/cut.png: the picture" in caplog.text
    for rank in (0, 1):
        tolerant = of_files(processor, tmp_path, rank, 2, index=index, max_seq_length=64, max_bad_fraction=0.02)
        assert len(list(tolerant)) == len(batches)
    with pytest.raises(ValueError, match=r"left out, more than max_bad_fraction=0\.0 allows; the last was mine\[7\]"):
        list(of_files(processor, tmp_path, index=index, max_seq_length=64, max_bad_fraction=0.0))


def test_a_picture_that_changed_since_it_was_measured(
    processor: NeoProcessor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    (tmp_path / "records.jsonl").write_text(json.dumps({"image": "a.png", "conversations": turns}))
    build_index(source_of(tmp_path), processor, tmp_path / "index" / "mine")
    Image.new("RGB", (128, 128), "red").save(tmp_path / "a.png")
    (batch,) = of_files(processor, tmp_path, index=True, max_bad_fraction=0.1)
    assert not batch.names
    assert "as measured: have its pictures changed?" in caplog.text


def test_rows_that_cannot_be_shared_out(processor: NeoProcessor) -> None:
    with pytest.raises(ValueError, match="rows_per_batch=2 rows cannot be shared out equally among 3 processes"):
        drawn(processor, world_size=3)
