"""The interface of a model."""

from collections.abc import Callable
from typing import Any


class BaseModel:
    INTERLEAVE = False
    allowed_types = ["text", "image", "video"]

    def __init__(self) -> None:
        self.dump_image_func: Callable[[Any], list[str]] | None = None

    def use_custom_prompt(self, dataset: str) -> bool:
        return False

    def set_dump_image(self, dump_image_func: Callable[[Any], list[str]]) -> None:
        self.dump_image_func = dump_image_func

    def dump_image(self, line: Any, dataset: str) -> list[str]:
        assert self.dump_image_func is not None
        return self.dump_image_func(line)

    def generate(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
        assert all(part["type"] in self.allowed_types for part in message)
        return self.generate_inner(message, dataset)

    def generate_inner(self, message: list[dict[str, str]], dataset: str | None = None) -> str:
        raise NotImplementedError
