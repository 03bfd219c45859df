"""People's input to model input: pictures, conversations and text to tensors.

`picture.py` opens any picture, `image.py` is the arithmetic of pixels, `chat.py` the chat format,
`tokenizer.py` the special tokens, `processor.py` puts them together.
"""

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
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, Qwen2Tokenizer

    from neo.model.config import NeoConfig

    AutoImageProcessor.register(NeoConfig, image_processor_classes={"pil": NeoImageProcessor}, exist_ok=True)
    AutoTokenizer.register(NeoConfig, tokenizer_class=Qwen2Tokenizer, exist_ok=True)
    AutoProcessor.register(NeoConfig, NeoProcessor, exist_ok=True)
