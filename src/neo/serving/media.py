"""Pictures of strangers: what they are is told by their content, their size by their head; only then are they decoded.

What is refused is told in our own words. Decoding belongs in a thread (`answering.py`).
"""

import base64
import binascii
import io
import re
import warnings

from PIL import Image

from neo.processing.picture import MAX_ASPECT_RATIO, load_image
from neo.serving.errors import ApiError

FORMATS = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "GIF": re.compile(rb"GIF8[79]a"),
    "BMP": re.compile(rb"BM"),
}
"""How files begin."""
FOREIGN = (
    ("a web page", re.compile(rb"<(script|\?php|html|!doctype)", re.IGNORECASE), 0),
    ("a PDF", re.compile(rb"%PDF-"), 0),
    ("an archive", re.compile(rb"PK\x05\x06"), -(2**16 + 22)),  # the end of a zip, where readers look for it
    ("an archive", re.compile(rb"Rar!\x1a\x07|7z\xbc\xaf\x27\x1c"), 0),
    # `=` may also begin the width of a picture; in a script text stands behind it, or what opens a comment or string.
    ("a program", re.compile(rb"\A(GIF8[79]a|BM|\xff\xd8\xff\xe0)(/\*|=\s*[/\"'`]|=[\t\n\r -~]{6})"), 0),
)
"""What a picture may not be besides: its name, how that is recognised, and from which byte on."""
LEAST_SIDE = 2
"""Pixels. Thinner pictures show nothing and are mostly attempts."""
_LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class MediaError(ApiError):
    """A picture that is not taken; `kind` is its label in neo_decode_errors."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(status, message, code=f"image_{kind}")
        self.kind = kind


def from_data_url(url: str, name: str) -> bytes:
    """The file in a data: address.

    Raises:
        MediaError: it is none, or its base64 is damaged.
    """
    head, comma, body = url.partition(",")
    if not (comma and head[:5].lower() == "data:" and head[-7:].lower() == ";base64"):
        raise MediaError(400, "address", f"{name} must be a data: address in base64, data:image/png;base64,...")
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        raise MediaError(400, "address", f"{name}: its base64 is damaged") from None


def measure(data: bytes, name: str) -> tuple[int, int]:
    """Width and height of a file that seems to be a picture, nothing decoded.

    Raises:
        MediaError: it is none of `FORMATS`, or something else besides, or too thin.
    """
    kind = next((kind for kind, begins in FORMATS.items() if begins.match(data)), None)
    if kind is None:
        raise MediaError(415, "format", f"{name} is none of {', '.join(FORMATS)}")
    for what, signs, start in FOREIGN:
        if signs.search(data[start:] if start else data):
            raise MediaError(415, "polyglot", f"{name} is {what} besides a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have a limit of our own
            with Image.open(io.BytesIO(data), formats=[kind]) as head:
                width, height = head.size
    except Image.DecompressionBombError:
        raise MediaError(413, "size", f"{name} has too many pixels") from None
    except Exception:  # noqa: BLE001 - decoders raise all kinds on damaged files
        raise _damaged(name) from None
    if min(width, height) < LEAST_SIDE or max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise MediaError(422, "thin", f"{name} is {width} x {height} pixels, too thin to show anything")
    return width, height


def decode(data: bytes, name: str, most_pixels: int) -> Image.Image:
    """An RGB picture, upright; of several frames the first.

    Raises:
        MediaError: it is cut off or damaged.
    """
    if any(FORMATS[kind].match(data) and last not in data for kind, last in _LAST_BYTES.items()):
        raise _damaged(name)
    try:
        return load_image(data, name, max_source_pixels=most_pixels)
    except ValueError:
        raise _damaged(name) from None


def open_all(files: list[bytes], most_pixels: int) -> list[Image.Image]:
    """The pictures of one request, whose pixels are counted together before any is decoded.

    Raises:
        MediaError: as `measure` and `decode`; or there are too many pixels.
    """
    names = [f"picture {number}" for number in range(1, len(files) + 1)]
    sizes = [measure(data, name) for data, name in zip(files, names, strict=True)]
    if (pixels := sum(width * height for width, height in sizes)) > most_pixels:
        raise MediaError(413, "size", f"the pictures have {pixels} pixels together; at most {most_pixels} are opened")
    return [decode(data, name, most_pixels) for data, name in zip(files, names, strict=True)]


def _damaged(name: str) -> MediaError:
    return MediaError(422, "damaged", f"{name} is cut off or damaged")
