"""What lmms-eval is told by the entry point in pyproject.toml; NEO is imported when it is wanted."""

from typing import Any


def lmms_eval_model() -> Any:
    """The model `neo` for lmms-eval's registry."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="neo", chat_class_path="neo.evaluation.lmms_eval.Neo")
