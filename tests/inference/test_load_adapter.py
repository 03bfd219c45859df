"""A model with an adapter, asked."""

from pathlib import Path

import pytest
import torch

import neo
from neo.inference.chat import ChatModel

QUESTION = "What color is the circle?"


@pytest.fixture(scope="session")
def adapted(tiny_checkpoint: Path, tiny_adapter: Path) -> ChatModel:
    return neo.load_model(tiny_checkpoint, device="cpu", adapter=tiny_adapter)


def test_an_adapter_is_asked_like_a_model(chat_model: ChatModel, adapted: ChatModel, pictures: list) -> None:
    said = adapted.generate(image=pictures[0], text=QUESTION, max_length=12)
    assert said != chat_model.generate(image=pictures[0], text=QUESTION, max_length=12)
    assert not any(parameter.requires_grad for parameter in adapted.model.parameters())
    assert not adapted.model.training


def test_its_dtype_is_that_of_the_model(tiny_checkpoint: Path, tiny_adapter: Path) -> None:
    loaded = neo.load_model(tiny_checkpoint, dtype="bf16", device="cpu", adapter=tiny_adapter)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert isinstance(loaded.generate(text=QUESTION, max_length=4), str)


def test_an_adapter_is_no_model(tiny_adapter: Path) -> None:
    with pytest.raises(ValueError, match=r"this is an adapter for .* and no model by itself; name .* as the model"):
        neo.load_model(tiny_adapter)


def test_a_folder_without_adapter(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no adapter here"):
        neo.load_model(tiny_checkpoint, adapter=tmp_path)
