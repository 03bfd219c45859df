"""A model with an adapter, asked."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig

import neo
from neo.inference.chat import ChatModel
from neo.model.adapter import PROJECTIONS, add_adapter, save_adapter
from neo.model.neo import NeoForConditionalGeneration

QUESTION = "What color is the circle?"


@pytest.fixture(scope="session")
def adapter(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny checkpoint that changes what it says."""
    folder = tmp_path_factory.mktemp("adapter")
    model = NeoForConditionalGeneration.from_pretrained(tiny_checkpoint)
    generator = torch.Generator().manual_seed(0)
    for parameter in add_adapter(model, LoraConfig(r=2, target_modules=list(PROJECTIONS))):
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    save_adapter(model, folder)
    return folder


@pytest.fixture(scope="session")
def adapted(tiny_checkpoint: Path, adapter: Path) -> ChatModel:
    return neo.load_model(tiny_checkpoint, device="cpu", adapter=adapter)


def test_an_adapter_is_asked_like_a_model(chat_model: ChatModel, adapted: ChatModel, pictures: list) -> None:
    said = adapted.generate(image=pictures[0], text=QUESTION, max_length=12)
    assert said != chat_model.generate(image=pictures[0], text=QUESTION, max_length=12)
    assert not any(parameter.requires_grad for parameter in adapted.model.parameters())
    assert not adapted.model.training


def test_its_dtype_is_that_of_the_model(tiny_checkpoint: Path, adapter: Path) -> None:
    loaded = neo.load_model(tiny_checkpoint, dtype="bf16", device="cpu", adapter=adapter)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert isinstance(loaded.generate(text=QUESTION, max_length=4), str)


def test_an_adapter_is_no_model(adapter: Path) -> None:
    with pytest.raises(ValueError, match=r"this is an adapter for .* and no model by itself; name .* as the model"):
        neo.load_model(adapter)


def test_a_folder_without_adapter(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no adapter here"):
        neo.load_model(tiny_checkpoint, adapter=tmp_path)
