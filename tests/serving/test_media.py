"""Pictures of strangers: what is opened, what is refused, and what a refusal says."""

import contextlib
import io
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from serving_tools import data_url

from neo.serving.media import FORMATS, MediaError, decode, from_data_url, measure, open_all

MOST = 1_000_000
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))


def file_of(kind: str, picture: Image.Image = PICTURE, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


FILES = {kind: file_of(kind) for kind in FORMATS}


def opened_or_refused(data: bytes) -> Image.Image | MediaError:
    try:
        return open_all([data], MOST)[0]
    except MediaError as error:
        return error


def refused(data: bytes, most: int = MOST) -> MediaError:
    with pytest.raises(MediaError) as error:
        open_all([data], most)
    assert 400 <= error.value.status_code < 500
    return error.value


def header_png(width: int, height: int) -> bytes:
    """A PNG that says it is so large and has two bytes of picture."""
    parts = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"00"), b"IEND"]
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_that_are_opened(kind: str) -> None:
    [picture] = open_all([FILES[kind]], MOST)
    assert (picture.mode, picture.size) == ("RGB", PICTURE.size)
    if kind in ("PNG", "BMP"):
        assert picture.tobytes() == PICTURE.tobytes()


def test_the_first_frame_of_a_gif() -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    [picture] = open_all([file_of("GIF", frames[0], save_all=True, append_images=frames[1:])], MOST)
    assert picture.getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "ICO", "PCX", "TGA"])
def test_other_formats_of_pictures_are_not(kind: str) -> None:
    error = refused(file_of(kind))
    assert (error.status_code, error.kind) == (415, "format")


@pytest.mark.parametrize("data", [b"", b"GIF", b"%PDF-1.7", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"MZ" * 50])
def test_what_is_no_picture_is_not(data: bytes) -> None:
    assert refused(data).kind == "format"


def test_content_counts_and_not_what_it_is_called() -> None:
    assert from_data_url(data_url(FILES["PNG"], "jpeg"), "p") == FILES["PNG"]
    assert open_all([from_data_url(data_url(FILES["JPEG"], "svg+xml"), "p")], MOST)[0].size == PICTURE.size


@pytest.mark.parametrize("size", [(10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (1001, 1000)], ids=str)
def test_decompression_bombs_are_refused_by_their_head(size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said on stderr
        error = refused(header_png(*size))
    assert (error.status_code, error.kind) == (413, "size")


def test_the_pixels_of_all_pictures_count_together() -> None:
    assert len(open_all([FILES["PNG"]] * 3, 3 * 2400)) == 3
    with pytest.raises(MediaError, match="7200 pixels together; at most 7199"):
        open_all([FILES["PNG"]] * 3, 7199)


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (100, 1), (2, 500), (3000, 10)], ids=str)
def test_thin_pictures_are_refused(size: tuple[int, int]) -> None:
    error = refused(file_of("PNG", Image.new("RGB", size)))
    assert (error.status_code, error.kind) == (422, "thin")


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("a.txt", "text")
    return file.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "other",
    [archive(), b"<html><body>x", b"<SCRIPT>alert(1)</script>", b"<?php f(); ?>", b"%PDF-1.4", b"Rar!\x1a\x07\x01"],
    ids=["zip", "html", "script", "php", "pdf", "rar"],
)  # fmt: skip
def test_a_picture_that_is_something_else_besides_is_refused(kind: str, other: bytes) -> None:
    error = refused(FILES[kind] + other)
    assert (error.status_code, error.kind) == (415, "polyglot")


@pytest.mark.parametrize(
    "size", [(61, 200), (317, 200), (573, 200), (4157, 200), (2365, 1080), (2877, 1600), (8509, 400)]
)
def test_a_gif_may_have_any_width(size: tuple[int, int]) -> None:
    [picture] = open_all([file_of("GIF", Image.new("RGB", size, "red"))], 5 * MOST)
    assert picture.size == size


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a/*",
        b"GIF89a=1",
        b"GIF89a=\n\t'",
        b"GIF89a=/*\0",
        b"GIF87a= 0",
        b"BM/*..",
        b"BM=1",
        b"\xff\xd8\xff\xe0/*",
    ],
)
def test_a_picture_that_is_a_script_is_refused(data: bytes) -> None:
    assert refused(data + FILES["GIF"]).kind == "polyglot"


def test_a_script_in_a_comment_inside_a_picture_is_refused() -> None:
    assert refused(file_of("GIF", comment=b"*/=1;<script>alert(1)</script>")).kind == "polyglot"


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_cut_off_is_refused_or_nothing_of_the_picture_is_missing(kind: str) -> None:
    whole = open_all([FILES[kind]], MOST)[0].tobytes()
    lengths = [*range(1, 200, 3), *range(200, len(FILES[kind]), 97), *range(len(FILES[kind]) - 12, len(FILES[kind]))]
    for length in lengths:
        result = opened_or_refused(FILES[kind][:length])
        if isinstance(result, MediaError):
            assert result.kind in ("damaged", "format", "thin")
        else:
            assert result.tobytes() == whole
    assert refused(FILES[kind][: len(FILES[kind]) // 2]).kind == "damaged"


def test_refusals_are_in_our_own_words() -> None:
    bad_crc = bytearray(FILES["PNG"])
    bad_crc[40] ^= 255
    for data in (bytes(bad_crc), FILES["JPEG"][:300] + b"\xff\xd9", FILES["WEBP"][:50], FILES["BMP"][:60]):
        assert refused(data).detail == "picture 1 is cut off or damaged"


@pytest.mark.parametrize(
    "url",
    ["", "data:", "data:image/png;base64", "data:image/png,abc", "data:image/png;base64,a", "data:image/png;base64,ä",
     "data:image/png;base64,!!!!", "http://localhost/x.png", "file:///etc/passwd", "/etc/passwd"],
)  # fmt: skip
def test_addresses_that_are_no_data(url: str) -> None:
    with pytest.raises(MediaError) as error:
        from_data_url(url, "picture 1")
    assert (error.value.status_code, error.value.kind) == (400, "address")
    assert "passwd" not in error.value.detail


def test_base64_may_have_line_breaks() -> None:
    broken = data_url(FILES["PNG"])
    broken = broken[:60] + "\r\n" + broken[60:120] + "\n " + broken[120:]
    assert from_data_url(broken, "p") == FILES["PNG"]


# --- fuzz ---


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A picture file with some bytes changed, put in, left out, or its end missing."""
    data = bytearray(FILES[draw(st.sampled_from(sorted(FILES)))])
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, min(len(data), draw(st.sampled_from([32, 200, 5000])))))
        what = draw(st.sampled_from(["change", "put in", "leave out", "cut"]))
        some = draw(st.binary(min_size=1, max_size=8))
        if what == "change":
            data[place : place + len(some)] = some
        elif what == "put in":
            data[place:place] = some
        elif what == "leave out":
            del data[place : place + len(some)]
        elif draw(st.booleans()):
            del data[place:]
    return bytes(data)


def opens_or_refuses(data: bytes) -> None:
    result = opened_or_refused(data)
    if isinstance(result, MediaError):
        assert 400 <= result.status_code < 500
        assert result.detail.startswith("picture 1 ") or result.kind == "size"
    else:
        assert result.mode == "RGB"
        assert min(result.size) >= 2
        assert result.width * result.height <= MOST


@settings(max_examples=400, deadline=None)
@given(damaged())
def test_damaged_files_are_opened_or_refused(data: bytes) -> None:
    opens_or_refuses(data)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*FILES.values()]).map(lambda file: file[:16]), st.binary(max_size=300))
@example(b"BM", b"\x00" * 60)
@example(b"RIFF\xff\xff\xff\xffWEBP", b"VP8X" + b"\xff" * 40)
def test_random_bytes_behind_the_head_of_a_picture(head: bytes, data: bytes) -> None:
    opens_or_refuses(head + data)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80) | st.text("data:image/pngbase64;,=+A\n", max_size=80).map("data:image/png;base64,".__add__))
def test_any_text_is_a_data_address_or_refused(url: str) -> None:
    with contextlib.suppress(MediaError):
        assert isinstance(from_data_url(url, "p"), bytes)


def test_the_head_tells_the_size_and_nothing_is_decoded() -> None:
    assert measure(FILES["PNG"][:60] + b"nonsense", "p") == PICTURE.size
    with pytest.raises(MediaError):
        decode(FILES["PNG"][:60] + b"nonsense", "p", MOST)
