"""Makes transformers' Auto classes know NEO checkpoints, at once or as soon as somebody uses transformers.

Importing transformers' registries costs seconds (they import torch), which `neo --help` should not pay. So if
they are not there yet, a hook waits for them and registers when the import that brought them has ended. Not
earlier: until then, modules of transformers that NEO builds on may be half-made.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

REGISTRIES = "transformers.models.auto.configuration_auto"
"""The module that every Auto class imports."""


def register() -> None:
    """Teach transformers' Auto classes what `model_type` "neo_chat" is."""
    import transformers
    from transformers import AutoConfig, AutoModel

    from neo import processing
    from neo.model.config import NeoConfig, NeoTextConfig, NeoVisionConfig
    from neo.model.neo import NeoForConditionalGeneration, NeoModel

    for config in (NeoConfig, NeoTextConfig, NeoVisionConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)
    AutoModel.register(NeoConfig, NeoModel, exist_ok=True)
    for name in ("AutoModelForImageTextToText", "AutoModelForMultimodalLM", "AutoModelForCausalLM"):
        if hasattr(transformers, name):  # AutoModelForMultimodalLM is younger than our oldest transformers
            getattr(transformers, name).register(NeoConfig, NeoForConditionalGeneration, exist_ok=True)
    processing.register()


def register_when_needed() -> None:
    """Register now if transformers' registries are imported already, otherwise when they are."""
    if REGISTRIES in sys.modules:
        register()
    elif not any(isinstance(finder, _Hook) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Hook())


class _Hook(MetaPathFinder):
    """Registers once the registries are there and the outermost import of transformers or neo has ended."""

    def __init__(self) -> None:
        self._imports = threading.local()  # how deep this thread is in imports

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in ("transformers", "neo"):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader.exec_module = self._watched(spec.loader.exec_module)  # type: ignore
                return spec
        return None

    def _watched(self, execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
        def exec_module(module: ModuleType) -> None:
            outer = getattr(self._imports, "depth", 0)
            self._imports.depth = outer + 1
            try:
                execute(module)
            finally:
                self._imports.depth = outer
            if outer == 0 and REGISTRIES in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                register()

        return exec_module
