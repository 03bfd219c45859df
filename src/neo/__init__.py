"""NEO, a native vision-language model: one decoder that sees pixels and words alike.

    import neo

    model = neo.load_model("neo-demo")
    print(model.generate(image="photo.jpg", text="What color is the circle?"))

Importing `neo` also teaches transformers' Auto classes the published checkpoints (`model_type` "neo_chat").
"""

import importlib
from typing import Any

from neo.registration import register_when_needed
from neo.version import __version__

_PUBLIC = {
    "NeoConfig": "neo.model.config",
    "NeoTextConfig": "neo.model.config",
    "NeoVisionConfig": "neo.model.config",
    "NeoForConditionalGeneration": "neo.model.neo",
    "NeoModel": "neo.model.neo",
    "NeoImageProcessor": "neo.processing.image",
    "NeoProcessor": "neo.processing.processor",
    "evaluate": "neo.evaluation.runner",
    "evaluate_model": "neo.evaluation.runner",
    "from_llm": "neo.model.from_llm",
    "load_model": "neo.inference.loading",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'neo' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register_when_needed()
