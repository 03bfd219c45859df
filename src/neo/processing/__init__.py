"""People's input to model input: pictures, conversations and text to tensors.

`picture.py` opens any picture, `image.py` is the arithmetic of pixels, `chat.py` the chat format,
`tokenizer.py` the special tokens, `processor.py` puts them together.
"""

import functools
from typing import Any

from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, PreTrainedConfig, Qwen2Tokenizer

from neo.model.config import NeoConfig

from .chat import CHAT_TEMPLATE
from .image import NeoImageProcessor, load_image, shared_max_pixels, smart_resize, tile_image
from .processor import Encoded, NeoProcessor
from .tokenizer import SPECIAL_TOKENS, add_special_tokens, special_ids, train_tokenizer

__all__ = [
    "CHAT_TEMPLATE",
    "SPECIAL_TOKENS",
    "Encoded",
    "NeoImageProcessor",
    "NeoProcessor",
    "add_special_tokens",
    "load_image",
    "register",
    "shared_max_pixels",
    "smart_resize",
    "special_ids",
    "tile_image",
    "train_tokenizer",
]


def register() -> None:
    """Make transformers' AutoImageProcessor, AutoProcessor and AutoTokenizer know NEO checkpoints."""
    AutoImageProcessor.register(NeoConfig, image_processor_classes={"pil": NeoImageProcessor}, exist_ok=True)
    AutoTokenizer.register(NeoConfig, tokenizer_class=Qwen2Tokenizer, exist_ok=True)
    AutoProcessor.register(NeoConfig, NeoProcessor, exist_ok=True)
    _let_auto_image_processor_read_config()


def _let_auto_image_processor_read_config() -> None:
    """AutoImageProcessor asks for an image processor file before it looks at the registered classes.

    Published checkpoints have none, or that of a CLIP processor which was never used, and there is no hook
    for that. So where it finds no file or a CLIP processor, and config.json is a NEO's, ours is loaded.
    """
    load = AutoImageProcessor.from_pretrained.__func__  # type: ignore[attr-defined]
    if getattr(load, "knows_neo", False):
        return

    @functools.wraps(load)
    def from_pretrained(cls: type, pretrained_model_name_or_path: Any, *inputs: Any, **kwargs: Any) -> Any:
        path = pretrained_model_name_or_path
        try:
            found = load(cls, path, *inputs, **kwargs)
        except OSError:
            if not _is_neo(path, kwargs):
                raise
            return NeoImageProcessor.from_pretrained(path, **kwargs)
        if type(found).__name__.startswith("CLIP") and _is_neo(path, kwargs):
            return NeoImageProcessor.from_pretrained(path, **kwargs)
        return found

    from_pretrained.knows_neo = True  # type: ignore[attr-defined]
    AutoImageProcessor.from_pretrained = classmethod(from_pretrained)  # type: ignore[assignment]


def _is_neo(path: Any, kwargs: dict[str, Any]) -> bool:
    try:
        config, _ = PreTrainedConfig.get_config_dict(path, **kwargs)
    except OSError:
        return False
    return config.get("model_type") == NeoConfig.model_type
