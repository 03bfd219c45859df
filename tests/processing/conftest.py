"""A small tokenizer and processor for the tests of this folder."""

import pytest

from neo.processing.image import NeoImageProcessor
from neo.processing.processor import NeoProcessor
from neo.processing.tokenizer import train_tokenizer

TEXTS = [
    "user\nWhat is this?\nassistant\nA red circle, 12345.\nsystem\nYou are helpful.\n",
    "What color is the square? Which shape is on the left? How many stars are there?",
    "Image-1: Image-2: the picture 你好吗 façade don't we're",
]


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(TEXTS * 3, 420)


@pytest.fixture
def processor(tokenizer):
    return NeoProcessor(NeoImageProcessor(min_pixels=4096, max_pixels=65536), tokenizer)
