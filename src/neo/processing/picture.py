"""Whatever a person calls a picture, to an upright RGB picture. Refusals are one sentence with its name.

The arithmetic that turns the RGB picture into model input is in `image.py`.
"""

from __future__ import annotations

import base64
import binascii
import io
import logging
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps

logger = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""File formats that are opened, recognised by content and never by file name."""

MAX_SOURCE_PIXELS = 178_956_970
"""Most pixels of a picture before it is decoded: 13 377 x 13 377, 512 MiB as RGB, Pillow's own limit."""
MAX_SOURCE_BYTES = 1 << 29
"""Most bytes of a picture's file: 512 MiB too, checked before it is read."""

_AT_ONCE = 1 << 20
"""Values that are scaled at the same time."""

_ADDRESSES = ("data:", "http://", "https://")

MAX_ASPECT_RATIO = 200
"""Longest side over shortest side above which a picture is refused, as in the published model."""

# What Pillow's decoders raise on damaged files (tests cut and flip bytes in every format).
_DECODE_ERRORS = (
    OSError,  # includes UnidentifiedImageError and "image file is truncated"
    ValueError,
    SyntaxError,
    EOFError,
    OverflowError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def load_image(
    source: Any, name: str | None = None, exif: bool = True, max_source_pixels: int = MAX_SOURCE_PIXELS
) -> Image.Image:
    """Open any picture as an 8-bit RGB Pillow image.

    Args:
        source: a path, a PIL image of any mode, the bytes of a file, a binary file object, a base64 `data:`
            address, or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8 [0, 255],
            uint16 [0, 65535], bool or float [0, 1]. Of an animated picture the first frame is taken.
        name: what error messages call the picture; by default its path or a description.
        exif: turn the picture upright as its EXIF orientation asks.
        max_source_pixels: most pixels, checked on the file's header before anything is decoded.

    16-bit pictures are scaled by 255 / 65535. The modes I and F carry no range: the smallest of 255 and 65535
    (for F also 1) that holds all values is taken for white; other values are stretched, lowest to highest.

    Raises:
        ValueError: a missing, empty, truncated or non-picture file, a format outside `FORMATS`, a
            decompression bomb, a zero-sided picture, sides above 200 : 1, an array of another shape or type.
    """
    if isinstance(source, Image.Image):
        name = name or getattr(source, "filename", "") or f"PIL image {source.width}x{source.height}"
        return _decode(source, name, exif, max_source_pixels)
    if isinstance(source, np.ndarray):
        name = name or "array of shape " + "x".join(map(str, source.shape))
        return _decode(_from_array(source, name), name, exif, max_source_pixels)
    data, name = _read(source, name)
    return _decode(_open(io.BytesIO(data), name), name, exif, max_source_pixels)


def image_size(source: Any, name: str | None = None, max_source_pixels: int = MAX_SOURCE_PIXELS) -> tuple[int, int]:
    """Width and height of a picture before it is turned upright, from the head of its file: nothing is decoded.

    Args:
        source, name, max_source_pixels: as in `load_image`.

    Raises:
        ValueError: as `load_image`, as far as the head of the file tells.
    """
    if isinstance(source, Image.Image | np.ndarray):
        return load_image(source, name, exif=False, max_source_pixels=max_source_pixels).size
    if isinstance(source, str | os.PathLike) and str(source) and not str(source).startswith(_ADDRESSES):
        name = name or str(source)[:200]
        try:
            file = Path(source).expanduser().open("rb")
        except (OSError, ValueError) as error:
            raise ValueError(f"{name}: cannot read the picture file ({getattr(error, 'strerror', error)}).") from error
        with file:
            _check_bytes(os.fstat(file.fileno()).st_size, name)
            image = _open(file, name)
    else:
        data, name = _read(source, name)
        image = _open(io.BytesIO(data), name)
    _check_size(image, name, max_source_pixels)
    return image.size


def picture_file(source: Any, name: str | None = None) -> tuple[bytes, str]:
    """The bytes of a picture's file as they are, and the usual ending of its name; of one in memory, as RGB PNG.

    Args:
        source, name: as in `load_image`.

    Raises:
        ValueError: as `load_image`; whether a file can be decoded is not looked at.
    """
    if isinstance(source, Image.Image | np.ndarray):
        file = io.BytesIO()
        load_image(source, name).save(file, "PNG")
        return file.getvalue(), "png"
    data, name = _read(source, name)
    kind = str(_open(io.BytesIO(data), name).format)
    return data, {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}.get(kind, kind.lower())


def is_web_address(source: Any) -> bool:
    """Whether this names a picture on the web."""
    return isinstance(source, str) and source.startswith(("http://", "https://"))


def _read(source: Any, name: str | None) -> tuple[bytes, str]:
    """The bytes of a path, data address, bytes or file object, and the name to use for them."""
    if isinstance(source, bytes | bytearray | memoryview):
        name = name or f"picture of {len(source)} bytes"
        _check_bytes(len(source), name)
        return bytes(source), name
    if isinstance(source, str) and source.startswith("data:"):
        name = name or "picture in a data: address"
        head, _, body = source.partition(",")
        if not head.endswith(";base64"):
            raise ValueError(f"{name}: only base64 data: addresses are read.")
        _check_bytes(len(body) * 3 // 4, name)
        try:
            return base64.b64decode(body, validate=True), name
        except binascii.Error as error:
            raise ValueError(f"{name}: the base64 text is damaged ({error}).") from error
    if is_web_address(source):
        raise ValueError(
            f"{name or source}: a web address is not fetched here; download the picture and give its path."
        )
    if isinstance(source, str | os.PathLike):
        if not str(source):
            raise ValueError(f"{name or 'picture'}: the path of the picture is empty.")
        name = name or str(source)[:200]
        try:
            with Path(source).expanduser().open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                data = file.read() if size <= MAX_SOURCE_BYTES else b""
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            raise ValueError(f"{name}: cannot read the picture file ({getattr(error, 'strerror', error)}).") from error
        _check_bytes(size, name)
        return data, name
    if hasattr(source, "read"):
        name = name or str(getattr(source, "name", "picture from a file object"))
        data = source.read(MAX_SOURCE_BYTES + 1)
        if not isinstance(data, bytes):
            raise ValueError(f"{name}: the file object is opened as text; open it in binary mode.")
        _check_bytes(len(data), name)
        return data, name
    raise ValueError(
        f"{name or 'picture'}: cannot make a picture of a {type(source).__name__}; "
        "give a path, a PIL image, bytes, a file object or an array."
    )


def _check_bytes(size: int, name: str) -> None:
    """Refuse a file by its size alone, before it is read or decoded."""
    if size > MAX_SOURCE_BYTES:
        raise ValueError(f"{name}: the picture file has {size} bytes; at most {MAX_SOURCE_BYTES} are read.")


def _open(file: BinaryIO, name: str) -> Image.Image:
    """What stands in a picture file, not decoded yet."""
    try:
        with warnings.catch_warnings():  # we have a limit of our own, with an error
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(file, formats=FORMATS)
    except Image.UnidentifiedImageError:
        if not file.seek(0, os.SEEK_END):
            raise ValueError(f"{name}: the picture file is empty.") from None
        raise ValueError(f"{name}: not a picture file that can be read ({', '.join(FORMATS)}).") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name}: too many pixels, possibly a decompression bomb ({error}).") from error
    except _DECODE_ERRORS as error:
        raise ValueError(f"{name}: the picture file is damaged ({error}).") from error


def _check_size(image: Image.Image, name: str, max_source_pixels: int) -> None:
    """Refuse a picture by its sides alone, before anything is decoded."""
    width, height = image.size
    if width < 1 or height < 1:
        raise ValueError(f"{name}: the picture is {width} x {height} pixels; both sides must be at least 1.")
    if width * height > max_source_pixels:
        raise ValueError(
            f"{name}: the picture has {width} x {height} = {width * height} pixels, possibly a decompression "
            f"bomb; at most {max_source_pixels} are opened."
        )
    check_aspect_ratio(height, width, name)


def _decode(image: Image.Image, name: str, exif: bool, max_source_pixels: int) -> Image.Image:
    """Check the sizes, decode, turn upright, convert to RGB."""
    _check_size(image, name, max_source_pixels)
    try:
        image.load()
        return to_rgb(_upright(image) if exif else image)
    except _NotFinite as error:
        raise ValueError(f"{name}: {error}") from None
    except _DECODE_ERRORS as error:
        raise ValueError(f"{name}: the picture file is truncated or damaged ({error}).") from error


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation asks. Only then a copy, which `exif_transpose` alone always makes."""
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return ImageOps.exif_transpose(image) if turned else image


def check_aspect_ratio(height: int, width: int, name: str = "picture") -> None:
    """Raise ValueError where the longer side is more than `MAX_ASPECT_RATIO` times the shorter one."""
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(
            f"{name}: the picture is {width} x {height} pixels; one side may be {MAX_ASPECT_RATIO} times the "
            "other at the most."
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB as the published model does.

    With alpha, and some pixel fully transparent, the picture is pasted on white; other alpha is dropped.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "LAB":  # the one mode that Pillow's convert does not know
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB"))  # type: ignore[return-value]
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_8_bit(image)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        if alpha.getextrema()[0] == 0:
            white = Image.new("RGB", image.size, (255, 255, 255))
            white.paste(rgba, mask=alpha)
            return white
        return rgba.convert("RGB")
    return image.convert("RGB")


class _NotFinite(ValueError):
    """A float picture holds a value that is no number."""


def _to_8_bit(image: Image.Image) -> np.ndarray:
    """Modes I;16 (and its byte orders), I and F to uint8 (H, W); the ranges are those of `load_image`."""
    values = np.asarray(image)
    if image.mode.startswith("I;"):
        return _scale(values, 0.0, 65535.0)
    if not np.isfinite(values).all():
        raise _NotFinite("the picture holds values that are not finite numbers.")
    low, high = float(values.min()), float(values.max())
    for white in (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0):
        if low >= 0 and high <= white:
            return _scale(values, 0.0, white)
    return _scale(values, low, high)


def _scale(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Black to 0 and white to 255; in float64, some rows at a time, since that takes several times 8 bytes a value."""
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, _AT_ONCE // max(1, values[0].size))
    for start in range(0, len(values), rows):
        part = values[start : start + rows].astype(np.float64)
        scaled[start : start + rows] = np.rint((part - black) * (255.0 / max(white - black, 1e-12)))
    return scaled


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    """An array as described in `load_image` to a PIL image of mode L, RGB or RGBA."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        shape = tuple(array.shape)
        raise ValueError(f"{name}: an array picture must be (H, W), (H, W, 3) or (H, W, 4), not {shape}.")
    if 0 in array.shape:
        height, width = array.shape[:2]
        raise ValueError(f"{name}: the picture is {width} x {height} pixels; both sides must be at least 1.")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array = _scale(array, 0.0, 65535.0)
    elif np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):  # also true of NaN
            raise ValueError(
                f"{name}: a float array picture must lie in [0, 1], this one spans [{low:g}, {high:g}]; "
                "give uint8 for values up to 255."
            )
        array = _scale(array, 0.0, 1.0)
    elif array.dtype != np.uint8:
        raise ValueError(f"{name}: an array picture must be uint8, uint16, bool or float, not {array.dtype}.")
    return Image.fromarray(np.ascontiguousarray(array))
