"""Real samples through a real processor: batches do not depend on workers and resume exactly."""

from itertools import islice

import pytest
import torch
from tiny_checkpoint import TEXTS

from neo.data.loader import Batch, PackedLoader
from neo.data.mixture import Mixture
from neo.data.packing import Packer
from neo.data.records import Record
from neo.data.sources import Source, SyntheticSource
from neo.processing.image import NeoImageProcessor
from neo.processing.processor import NeoProcessor
from neo.processing.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def processor() -> NeoProcessor:
    return NeoProcessor(NeoImageProcessor(min_pixels=4096, max_pixels=16384), train_tokenizer(TEXTS, 400))


def loader(processor: NeoProcessor, workers: int = 0, source: Source | None = None) -> PackedLoader:
    source = source or SyntheticSource(families={"color": 2.0, "text": 1.0})
    return PackedLoader(Mixture([source], [1.0], 0), processor, Packer(384, 2, 2), workers)


def same(one: Batch, other: Batch) -> bool:
    return one.names == other.names and all(
        torch.equal(value, other.inputs[name]) for name, value in one.inputs.items()
    )


def test_workers_do_not_change_batches(processor: NeoProcessor) -> None:
    alone = list(islice(loader(processor), 4))
    helped = list(islice(loader(processor, workers=2), 4))
    assert all(same(one, other) for one, other in zip(alone, helped, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_resume_gives_the_next_batches(processor: NeoProcessor, workers: int) -> None:
    whole = loader(processor)
    batches = iter(whole)
    for _ in range(3):
        next(batches)
    state = whole.state_dict()
    resumed = loader(processor, workers)
    resumed.load_state_dict(state)
    assert all(same(next(batches), other) for other in islice(resumed, 3))


def test_a_batch_is_laid_out_as_the_network_reads_it(processor: NeoProcessor) -> None:
    batch = next(iter(loader(processor)))
    inputs = batch.inputs
    assert {name: inputs[name].shape for name in ("input_ids", "labels", "document_ids")} == dict.fromkeys(
        ("input_ids", "labels", "document_ids"), torch.Size([2, 384])
    )
    padding = inputs["document_ids"] == -1
    assert batch.tokens == (~padding).sum()
    assert (inputs["labels"][padding] == -100).all()
    assert batch.labelled == (inputs["labels"] != -100).sum()
    learned = inputs["labels"] != -100
    assert torch.equal(inputs["labels"][learned], inputs["input_ids"][learned])
    image_tokens = (inputs["input_ids"] == processor.image_token_id).sum()
    assert image_tokens * 4 == len(inputs["pixel_values"]) == inputs["image_grid_hw"].prod(-1).sum()


def test_pictures_follow_their_placeholders(processor: NeoProcessor) -> None:
    """The pixels of each row's pictures are those of the records in it, in order."""
    source = SyntheticSource(families={"color": 1.0})
    batch = next(iter(loader(processor, source=source)))
    expected = [
        processor.encode(source[int(name.partition("[")[2][:-1])].messages).pixel_values for name in batch.names
    ]
    assert torch.equal(batch.inputs["pixel_values"], torch.cat(expected))


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
        next(iter(loader(processor, source=Broken())))
    assert "left out broken[" in caplog.text
