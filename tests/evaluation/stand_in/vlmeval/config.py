"""The registry of models."""

from collections.abc import Callable
from typing import Any

supported_VLM: dict[str, Callable[..., Any]] = {}
