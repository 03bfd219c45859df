"""What a recipe names but a test does not have: its files of records, small and drawn, and a language model."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image
from transformers import Qwen3Config, Qwen3ForCausalLM

from neo.data.config import SourceConfig
from neo.processing.tokenizer import train_tokenizer

COLORS = ("red", "green", "blue", "yellow", "white", "black")
SMALL = [
    "--steps=2",
    "--optimizer.warmup_steps=1",
    "--log_every=1",
    "--data.max_seq_length=256",
    "--data.rows_per_batch=2",
    "--data.lookahead_rows=2",
    "--data.max_bad_fraction=0.5",
    "--data.workers=0",
    "--compile=false",
    "--device=cpu",
]
"""What makes any recipe run in seconds, apart from the model."""
SMALL_MODEL = [
    "--model.tokenizer_samples=300",
    "--model.text={vocab_size: 512, hidden_size: 32, intermediate_size: 48, num_hidden_layers: 4, "
    "extra_num_layers: 3, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 16}",
    "--model.vision={hidden_size: 16}",
]
"""What makes the fresh model of a recipe small: one layer, when it is a language model."""
QUESTION, ANSWER = "What color is the picture?", "It is {}."


def make_sources(folder: Path, sources: Iterable[SourceConfig], records: int = 12) -> None:
    """Write every source's files where it looks for them, below `folder`."""
    for source in sources:
        assert isinstance(source.path, str)
        path = folder / source.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            WRITERS[str(source.kind)](path, [COLORS[number % len(COLORS)] for number in range(records)])


def make_language_model(folder: Path, tied: bool) -> None:
    """A Qwen3 of two layers with random weights, and a tokenizer."""
    tokenizer = train_tokenizer([QUESTION, ANSWER.format(", ".join(COLORS))] * 3, 400)
    config = Qwen3Config(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _picture(color: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(file, "jpeg")
    return file.getvalue()


def _json(path: Path, colors: list[str]) -> None:
    if not path.suffix:  # a folder of texts
        path.mkdir()
        texts = [{"text": f"{QUESTION} {ANSWER.format(color)}"} for color in colors]
        (path / "00000.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
        return
    for color in colors:
        (path.parent / f"{color}.jpg").write_bytes(_picture(color))
    records = [
        {
            "image": f"{color}.jpg",
            "conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER.format(color)}],
        }
        for color in colors
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _webdataset(path: Path, colors: list[str]) -> None:
    path.mkdir()
    with tarfile.open(path / "00000.tar", "w") as tar:
        for number, color in enumerate(colors):
            for ending, content in (("jpg", _picture(color)), ("txt", ANSWER.format(color).encode())):
                member = tarfile.TarInfo(f"{number:05d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


WRITERS = {"json": _json, "webdataset": _webdataset}
