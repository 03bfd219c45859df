"""Packages that only some metrics need."""

import importlib
from typing import Any


def needed(module: str, what: str) -> Any:
    """A module of the extra `eval`.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ValueError(f"{what} need {package}: pip install 'neo-vlm[eval]'") from error
