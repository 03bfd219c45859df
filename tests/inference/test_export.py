import json
from pathlib import Path

import pytest
import torch

import neo
from neo.inference.chat import ChatModel
from neo.inference.export import export

QUESTION = "What color is the circle?"


def logits(model: ChatModel, picture: object) -> torch.Tensor:
    request = model.request([{"role": "user", "content": QUESTION, "image": picture}])
    with torch.no_grad():
        return model.model(**model.processor.collate([request.prompt])).logits


def test_merged_is_what_the_adapter_makes_of_the_model(
    tiny_checkpoint: Path, tiny_adapter: Path, tmp_path: Path, pictures: list
) -> None:
    folder = export(tiny_checkpoint, tmp_path / "merged", adapter=tiny_adapter)
    expected = logits(neo.load_model(tiny_checkpoint, device="cpu", adapter=tiny_adapter), pictures[0])
    merged = logits(neo.load_model(folder, device="cpu"), pictures[0])
    assert torch.allclose(merged, expected, rtol=1e-5, atol=5e-5)  # measured: up to 1.6e-5 beside logits of 10
    before = logits(neo.load_model(tiny_checkpoint, device="cpu"), pictures[0])
    assert not torch.allclose(before, expected, atol=0.1)
    assert not (folder / "adapter_config.json").exists()


def test_another_dtype(tiny_checkpoint: Path, tmp_path: Path, pictures: list) -> None:
    folder = export(tiny_checkpoint, tmp_path / "half", dtype="bf16")
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    expected = neo.load_model(tiny_checkpoint, dtype="bf16", device="cpu")
    assert torch.equal(logits(neo.load_model(folder, device="cpu"), pictures[0]), logits(expected, pictures[0]))
    again = export(folder, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_mistakes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dtype='int8' must be one of fp32, bf16, fp16"):
        export(tiny_checkpoint, tmp_path / "new", dtype="int8")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="there is something here already"):
        export(tiny_checkpoint, tmp_path)
    with pytest.raises(ValueError, match="no adapter here"):
        export(tiny_checkpoint, tmp_path / "new", adapter=tmp_path)
    assert not (tmp_path / "new").exists()
