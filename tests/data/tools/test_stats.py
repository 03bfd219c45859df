import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neo.data.sources import CorpusSource, Source, SyntheticSource
from neo.data.tools.stats import histogram, stats, write
from neo.data.tools.walk import some
from neo.model.config import IGNORE
from neo.processing.processor import NeoProcessor

QUESTION = {"question": "What?", "answer": "Noise."}


@pytest.mark.parametrize("workers", [0, 2])
def test_numbers_are_those_of_the_encoded_records(
    workers: int, records: Callable[..., Source], pictures: Path, processor: NeoProcessor
) -> None:
    photos = records(
        [
            {**QUESTION, "image": "photos/a.jpg", "family": "noise"},
            "{broken",
            {**QUESTION, "images": ["photos/a.jpg", "photos/b.png", "photos/b.png"]},
            {**QUESTION, "image": "photos/none.jpg"},
        ]
    )
    texts = CorpusSource(size=3)
    report = stats([photos, texts], processor, workers=workers).to_dict()
    whole = [photos[0], photos[2], *(texts[index] for index in range(3))]
    encoded = [processor.encode(record.messages, share_pixels=True) for record in whole]
    lengths = [len(one.input_ids) for one in encoded]
    assert report["unreadable"] == 2
    assert report["all"]["records"] == 5
    assert report["all"]["tokens"]["sum"] == sum(lengths)
    assert report["all"]["tokens"]["median"] == np.median(lengths)
    assert report["all"]["tokens"]["max"] == max(lengths)
    assert report["all"]["learned"] == sum(int((one.labels != IGNORE).sum()) for one in encoded)
    assert report["all"]["picture_tokens"] == sum(int((one.input_ids == processor.ids.image).sum()) for one in encoded)
    assert report["sources"]["mine"]["tokens"]["sum"] == sum(lengths[:2])
    assert list(report["sources"]) == ["corpus", "mine"]
    assert {name: one["records"] for name, one in report["families"].items()} == {"corpus": 3, "noise": 1, "": 1}
    assert report["pictures_per_record"] == {"0": 3, "1": 1, "3": 1}
    assert report["picture_sizes"]["width"]["max"] == 200
    assert report["picture_sizes"]["height"]["median"] == 123
    assert sum(report["length_histogram"]["records"]) == 5


def test_answers_are_counted(processor: NeoProcessor) -> None:
    source = SyntheticSource(size=20)
    report = stats([source], processor, [some(source, 10)]).to_dict()
    assert sum(report["turns"].values()) == report["all"]["records"] == 10


def test_report_is_written(
    records: Callable[..., Source], pictures: Path, tmp_path: Path, processor: NeoProcessor
) -> None:
    family = "$x_2^{ a family with a name that is long and no formula"
    source = records([{**QUESTION, "image": "photos/a.jpg", "family": family}, {"text": "Only words."}])
    found = stats([source], processor)
    write(found, tmp_path / "new" / "folder", "mine $", (4096, 65536))
    report = json.loads((tmp_path / "new" / "folder" / "stats.json").read_text())
    assert report == {"title": "mine $", **found.to_dict()}
    with Image.open(tmp_path / "new" / "folder" / "stats.png") as drawn:
        assert drawn.size == (1430, 825)


def test_texts_alone_are_drawn_too(tmp_path: Path, processor: NeoProcessor) -> None:
    found = stats([CorpusSource(size=2)], processor)
    assert found.to_dict()["picture_sizes"] == {"width": None, "height": None}
    write(found, tmp_path, "texts", (4096, 65536))
    assert (tmp_path / "stats.png").is_file()


def test_nothing_to_count_is_told(records: Callable[..., Source], processor: NeoProcessor) -> None:
    with pytest.raises(ValueError, match=r"none of 2 records.*mine\.jsonl, line 1: not JSON"):
        stats([records(["{broken", "{}"])], processor)


@pytest.mark.parametrize("tokens", [[7], [7, 7], [1, 100_000], list(range(1, 50))])
def test_every_length_has_its_bar(tokens: list[int]) -> None:
    edges, counts = histogram(np.array(tokens))
    assert counts.sum() == len(tokens)
    assert len(counts) == len(edges) - 1
    assert (np.diff(edges) > 0).all()
