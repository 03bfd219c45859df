"""Every way of giving a picture, every mode, and one clear sentence for everything that is none."""

import base64
import io
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from neo.processing.picture import FORMATS, MAX_SOURCE_PIXELS, image_size, load_image, picture_file

RED, WHITE = (255, 0, 0), (255, 255, 255)


def gradient(height=40, width=60):
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 4, y * 6, (x + y) * 2], axis=-1).astype(np.uint8))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def same(first, second):
    return first.mode == second.mode == "RGB" and np.array_equal(np.asarray(first), np.asarray(second))


def test_every_kind_of_source(tmp_path):
    image = gradient()
    data = encoded(image)
    path = tmp_path / "picture.wrong-name"
    path.write_bytes(data)
    array = np.asarray(image)
    address = "data:image/png;base64," + base64.b64encode(data).decode()
    with path.open("rb") as file:
        sources = [path, str(path), data, bytearray(data), io.BytesIO(data), file, address, image, array]
        sources += [
            np.dstack([array, np.full((40, 60), 255, np.uint8)]),
            array / 255.0,
            array.astype(np.uint16) * 257,
        ]
        for source in sources:
            assert same(load_image(source), image), type(source)


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_are_recognised_by_content(kind):
    image = gradient()
    options = {"lossless": True} if kind == "WEBP" else {}
    opened = np.asarray(load_image(encoded(image.quantize(8).convert("RGB"), kind, **options)), dtype=int)
    expected = np.asarray(image.quantize(8).convert("RGB"), dtype=int)
    if kind == "JPEG":
        assert abs(opened - expected).mean() < 12  # measured 6.4: JPEG loses
    else:
        assert np.array_equal(opened, expected)


@pytest.mark.parametrize("kind", FORMATS)
def test_sizes_come_from_the_head_of_the_file(kind, tmp_path):
    data = encoded(gradient(400, 600), kind)
    cut = tmp_path / "picture"
    cut.write_bytes(data if kind == "WEBP" else data[: len(data) // 2])  # Pillow opens no WebP file in part
    assert image_size(data) == image_size(cut) == image_size(str(cut)) == (600, 400)
    assert image_size(gradient()) == image_size(np.asarray(gradient())) == (60, 40)


@pytest.mark.parametrize("data", [b"", b"no picture", encoded(gradient(1, 400)), None])
def test_sizes_are_refused_as_pictures_are(data, tmp_path):
    path = tmp_path / "picture.png"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ValueError) as opened:
        load_image(path)
    with pytest.raises(ValueError) as measured:
        image_size(path)
    assert str(measured.value) == str(opened.value)


def test_other_formats_are_refused():
    for kind in ("ICO", "TGA", "PCX"):
        with pytest.raises(ValueError, match=r"icon\.png: not a picture file that can be read"):
            load_image(encoded(gradient(), kind), name="icon.png")


@pytest.mark.parametrize(
    ("mode", "color"),
    [
        ("1", 1),
        ("L", 255),
        ("P", 0),
        ("LA", (255, 255)),
        ("PA", 0),
        ("RGB", WHITE),
        ("RGBA", (*WHITE, 255)),
        ("RGBX", (*WHITE, 0)),
        ("RGBa", (*WHITE, 255)),
        ("La", (255, 255)),
        ("CMYK", (0, 0, 0, 0)),
        ("HSV", (0, 0, 255)),
        ("YCbCr", (255, 128, 128)),
        ("LAB", (255, 128, 128)),
        ("I", 65535),
        ("F", 1.0),
        ("I;16", 65535),
        ("I;16B", 65535),
    ],
)
def test_white_is_white_in_every_mode(mode, color):
    image = Image.new(mode, (4, 3), color)
    if mode in ("P", "PA"):
        image.putpalette([255] * 768)
        image.putalpha(255) if mode == "PA" else None
    opened = load_image(image)
    assert opened.mode == "RGB"
    assert np.asarray(opened).min() >= 254  # LAB rounds


def test_sixteen_bits_are_scaled_not_cut():
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    expected = [0, 1, 128, 255]
    for source in (
        values,
        Image.fromarray(values),
        encoded(Image.fromarray(values)),
        encoded(Image.fromarray(values), "TIFF"),
    ):
        assert np.asarray(load_image(source))[0, :, 0].tolist() == expected
    big_endian = Image.frombytes("I;16B", (4, 1), values.astype(">u2").tobytes())
    assert np.asarray(load_image(big_endian))[0, :, 0].tolist() == expected
    integers = Image.fromarray(values.astype(np.int32))
    assert integers.mode == "I"
    assert np.asarray(load_image(integers))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 32768.0, 65535.0], [0, 128, 255]),
        ([-10.0, 0.0, 10.0], [0, 128, 255]),
    ],
)
def test_float_pictures_are_scaled_by_the_range_that_holds_them(values, expected):
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert image.mode == "F"
    assert np.asarray(load_image(image))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_a_large_picture_is_scaled_in_little_memory(kind, monkeypatch):
    rng = np.random.default_rng(0)
    values = (rng.random((700, 900)) * (1.5 if kind == np.float32 else 65535)).astype(kind)
    white = 255 if kind == np.float32 else 65535
    expected = np.rint(values.astype(np.float64) * (255.0 / white)).astype(np.uint8)
    image = Image.fromarray(values)
    monkeypatch.setattr("neo.processing.picture._AT_ONCE", 5000)
    tracemalloc.start()
    opened = load_image(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(np.asarray(opened)[:, :, 0], expected)
    assert peak < 16 * values.size  # two copies in float64


def test_alpha_rule():
    image = Image.new("RGBA", (3, 1), (*RED, 255))
    image.putpixel((1, 0), (*RED, 128))
    assert np.asarray(load_image(image)).tolist() == [[list(RED)] * 3]  # no pixel wholly clear: alpha is dropped
    image.putpixel((2, 0), (0, 0, 0, 0))
    assert np.asarray(load_image(image)).tolist() == [[list(RED), [255, 127, 127], list(WHITE)]]
    grey = Image.new("LA", (2, 1), (0, 255))
    grey.putpixel((1, 0), (0, 0))
    assert np.asarray(load_image(grey)).tolist() == [[[0, 0, 0], list(WHITE)]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    opened = load_image(encoded(palette, transparency=1))
    assert np.asarray(opened).tolist() == [[list(RED), list(WHITE)]]


def test_exif_orientation_is_an_option():
    image = gradient()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    data = encoded(image, exif=exif)
    assert same(load_image(data), image.transpose(Image.Transpose.ROTATE_270))
    assert same(load_image(data, exif=False), image)
    assert same(load_image(load_image(data)), load_image(data))  # not turned twice


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert same(load_image(data), frames[0])


def bomb():
    """A header that claims 60 000 x 60 000 pixels, without the pixels."""
    data = bytearray(encoded(Image.new("L", (1, 1)), "BMP"))
    data[18:26] = (60_000).to_bytes(4, "little") * 2
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is not a picture", "not a picture file"),
        (b"%PDF-1.4 something", "not a picture file"),
        (encoded(gradient())[:-60], "truncated or damaged"),
        (encoded(gradient(), "JPEG")[:-200], "truncated or damaged"),
        (encoded(Image.new("RGB", (603, 3))), "603 x 3 pixels; one side may be 200 times the other"),
        (bomb(), "decompression bomb"),
    ],
)
def test_bad_files_are_one_sentence_with_the_name(tmp_path, data, words):
    path = tmp_path / "my photo.png"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a refusal is an error, never also a warning
        with pytest.raises(ValueError, match=words) as caught:
            load_image(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/nowhere/x.png", "/nowhere/x.png: cannot read the picture file .No such file"),
        ("/", "/: cannot read the picture file .Is a directory"),
        ("https://example.com/x.png", "https://example.com/x.png: a web address is not fetched"),
        ("data:image/png,abc", "only base64"),
        ("data:image/png;base64,a", "base64 text is damaged"),
        (io.StringIO("text"), "open it in binary mode"),
        (None, "cannot make a picture of a NoneType"),
        (7, "cannot make a picture of a int"),
        (Image.new("RGB", (0, 5)), "0 x 5 pixels"),
        (Image.fromarray(np.full((2, 2), np.nan, np.float32)), "not finite"),
        (np.zeros((0, 5, 3), np.uint8), "5 x 0 pixels"),
        (np.zeros((2, 2, 2), np.uint8), r"not \(2, 2, 2\)"),
        (np.zeros(4, np.uint8), r"not \(4,\)"),
        (np.zeros((2, 2), np.int64), "not int64"),
        (np.full((2, 2), 3.0), r"spans \[3, 3\]"),
        (np.full((2, 2), np.nan), "nan"),
    ],
)
def test_bad_sources_are_one_sentence(source, words):
    with pytest.raises(ValueError, match=words):
        load_image(source)


def test_the_limit_is_checked_on_the_header_before_decoding():
    image = gradient(40, 60)
    with pytest.raises(ValueError, match=r"60 x 40 = 2400 pixels, possibly a decompression bomb; at most 2399"):
        load_image(encoded(image)[:100], max_source_pixels=2399)  # truncated: decoding would fail first
    assert load_image(encoded(image), max_source_pixels=2400).size == (60, 40)
    assert MAX_SOURCE_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


def test_the_bytes_of_a_file_are_limited_before_it_is_read(tmp_path, monkeypatch):
    data = encoded(gradient(40, 60))
    path = tmp_path / "large.png"
    path.write_bytes(data)
    address = "data:image/png;base64," + base64.b64encode(data).decode()
    monkeypatch.setattr("neo.processing.picture.MAX_SOURCE_BYTES", len(data) - 1)
    for read in (load_image, image_size, picture_file):
        for source in (path, str(path), data, address, io.BytesIO(data)):
            with pytest.raises(ValueError, match=rf"the picture file has \d+ bytes; at most {len(data) - 1} are read"):
                read(source)
    # The length of base64 tells that of the file to two bytes.
    monkeypatch.setattr("neo.processing.picture.MAX_SOURCE_BYTES", len(data) + 2)
    assert all(load_image(one).size == (60, 40) for one in (path, data, address, io.BytesIO(data)))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_damaged_files_are_opened_or_refused_never_anything_else(kind, data):
    raw = bytearray(encoded(gradient(9, 11), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(1, len(raw)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = load_image(bytes(raw), name="x", max_source_pixels=1_000_000).mode
        except ValueError as error:
            result = str(error)
    assert result == "RGB" or result.startswith("x: ")
