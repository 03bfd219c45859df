"""Fonts for drawn text: those that matplotlib ships, and Pillow's own."""

import functools
import importlib.util
from pathlib import Path

from PIL import ImageFont

# Every one has all of ASCII's letters and digits.
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "cmss10", "pillow"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "cmr10", "cmb10", "cmti10"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "cmtt10"),
)
# Readable at 11 pixels.
SMALL = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "DejaVuSansMono-Bold", "pillow")


@functools.cache
def _folder() -> Path:
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        raise ImportError('Drawing text needs the fonts of matplotlib: pip install "neo-vlm[train]".')
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"


@functools.cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of `FONTS` at a size in pixels.

    Raises ImportError when matplotlib is not installed.
    """
    if name == "pillow":
        return ImageFont.load_default(size)  # type: ignore[return-value]  # FreeType is part of every wheel
    # BASIC layout: the same picture with and without the optional raqm library.
    return ImageFont.truetype(str(_folder() / f"{name}.ttf"), size, layout_engine=ImageFont.Layout.BASIC)
