"""A model that answers with random weights, and VLMEvalKit's stand-in."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from tiny_checkpoint import tiny_checkpoint

__all__ = ["tiny_checkpoint"]


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The adapter on the stand-in, which has two questions of each of five benchmarks; A answers the first."""
    forget = ("vlmeval", "neo.evaluation.vlmevalkit")
    assert not [name for name in sys.modules if name.startswith(forget)]
    monkeypatch.syspath_prepend(Path(__file__).parent / "stand_in")
    for key in ("OPENAI_API_KEY", "AZURE_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    picture = tmp_path / "red.png"
    Image.new("RGB", (64, 64), "red").save(picture)
    texts = {
        "MMVet": ("What is it?", "Why?"),
        "POPE": ("Is it red?", "Is it blue?"),
        "DocVQA_VAL": ("What is written?", "Who?"),
        "OCRBench": ("What is written?", "Who?"),
    }
    tables = importlib.import_module("vlmeval.dataset").TABLES
    for name, questions in texts.items():
        rows = {"index": [0, 1], "question": questions, "answer": ["A", "b"], "image_path": str(picture)}
        tables[name] = pd.DataFrame(rows)
    rows = {"index": [0, 1, 2], "split": ["dev", "validation", "validation"], "answer": ["A", "A", "7"]}
    rows |= {"question": ["Not asked?", "Which?", "How many?"], "hint": [None, "Think.", None]}
    rows |= {
        "A": ["a", "red", None],
        "B": ["b", 2, None],
        "image_path": [str(picture), f"{picture};{picture}", str(picture)],
    }
    tables["MMMU_DEV_VAL"] = pd.DataFrame(rows)
    yield importlib.import_module("neo.evaluation.vlmevalkit")
    for name in [name for name in sys.modules if name.startswith(forget)]:
        del sys.modules[name]
