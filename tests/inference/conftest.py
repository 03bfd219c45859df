"""Pictures, and the tiny checkpoint loaded."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_checkpoint import tiny_adapter, tiny_checkpoint

import neo
from neo.inference.chat import ChatModel

__all__ = ["tiny_adapter", "tiny_checkpoint"]


@pytest.fixture(scope="session")
def chat_model(tiny_checkpoint: Path) -> ChatModel:
    return neo.load_model(str(tiny_checkpoint), device="cpu")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Three pictures of noise in three sizes."""
    noise = np.random.default_rng(0)
    sizes = ((96, 128), (64, 64), (128, 64))
    return [Image.fromarray(noise.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]
