"""A processor and a few pictures for the tools to look at."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neo.data.config import SourceConfig
from neo.data.sources import Source, open_source
from neo.model.names import resolve
from neo.processing.processor import NeoProcessor


@pytest.fixture(scope="session")
def processor() -> NeoProcessor:
    return NeoProcessor.from_pretrained(resolve("neo-demo"), min_pixels=9216)  # so that pictures keep their sizes


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with a JPEG of 200 x 150 and a PNG of 64 x 96 pixels, both noise."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, size in {"a.jpg": (150, 200, 3), "b.png": (96, 64, 3)}.items():
        Image.fromarray(generator.integers(0, 256, size, dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def records(tmp_path: Path) -> Callable[..., Source]:
    """`records(items)`: a source of them, written as JSONL; texts are lines as they are."""

    def make(items: Iterable[Any], name: str = "mine") -> Source:
        lines = [item if isinstance(item, str) else json.dumps(item) for item in items]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return open_source(SourceConfig(path=str(path)), name)

    return make
