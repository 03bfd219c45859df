"""Sizes, pixel values and tiles against the reference's vectors and against what they must always satisfy."""

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from neo.processing.image import (
    NeoImageProcessor,
    patchify,
    shared_max_pixels,
    smart_resize,
    tile_grid,
    tile_image,
)

GOLDEN = Path(__file__).parents[1] / "golden"
PICTURES = json.loads((GOLDEN / "images" / "meta.json").read_text())


def noise(height, width, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_smart_resize_is_the_published_one():
    rows = json.loads((GOLDEN / "smart_resize.json").read_text())["rows"]
    assert len(rows) == 400
    for height, width, low, high, expected in rows:
        if expected is None:
            with pytest.raises(ValueError, match=f"{width} x {height}.*200 times"):
                smart_resize(height, width, 32, low, high)
        else:
            assert list(smart_resize(height, width, 32, low, high)) == expected


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([(4096, 65536), (65536, 4194304)]))
def test_smart_resize_keeps_bounds_and_shape(height, width, bounds):
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ValueError, match="200 times"):
            smart_resize(height, width, 32, *bounds)
        return
    new_height, new_width = smart_resize(height, width, 32, *bounds)
    assert new_height % 32 == new_width % 32 == 0
    assert min(new_height, new_width) >= 32
    assert new_height * new_width >= bounds[0]
    # a side that cannot go below 32 is the only reason to exceed the upper bound
    assert new_height * new_width <= bounds[1] or min(new_height, new_width) == 32
    # each side is within one step of 32 of the ideal one, so tall stays tall
    assert (new_height - new_width) * (height - width) >= 0 or abs(height - width) < 1
    assert smart_resize(width, height, 32, *bounds) == (new_width, new_height)
    if math.prod((new_height, new_width)) <= bounds[1]:
        assert smart_resize(new_height, new_width, 32, *bounds) == (new_height, new_width)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 5, 32, 1, 9), "5 x 0 pixels"),
        ((64, 64, 32, 100, 99), "min_pixels .100. is above max_pixels .99."),
    ],
)
def test_smart_resize_refuses_nonsense(arguments, words):
    with pytest.raises(ValueError, match=words):
        smart_resize(*arguments)


@pytest.mark.parametrize("meta", PICTURES, ids=lambda meta: meta["file"])
def test_pixel_values_are_the_published_ones(meta):
    expected = load_file(GOLDEN / "images" / "expected.safetensors")
    bounds = {name: meta[name] for name in ("min_pixels", "max_pixels")}
    image = Image.open(GOLDEN / "images" / meta["file"])
    output = NeoImageProcessor(**bounds)(images=[image], return_tensors="pt")
    assert output["image_grid_hw"].dtype == torch.int64
    assert output["image_grid_hw"].tolist() == [meta["grid_hw"]]
    error = (output["pixel_values"] - expected[meta["file"] + ".pixel_values"]).abs().max()
    assert error < 1e-5  # measured 4.8e-7, two float32 steps at values up to 2.6


def test_several_pictures_come_one_after_another():
    images = [noise(64, 96), noise(96, 64, seed=1)]
    processor = NeoImageProcessor(min_pixels=4096)
    together = processor(images=images, return_tensors="pt")
    alone = [processor(images=image, return_tensors="pt") for image in images]
    assert torch.equal(together["pixel_values"], torch.cat([one["pixel_values"] for one in alone]))
    assert together["image_grid_hw"].tolist() == [[4, 6], [6, 4]]
    nested = processor(images=[[images[0]], [images[1]]], return_tensors="np")
    assert np.array_equal(nested["pixel_values"], together["pixel_values"].numpy())


def test_a_patch_is_channel_first_and_patches_are_row_major():
    values = np.zeros((32, 48, 3), np.uint8)
    values[16, 33, 2] = 255  # patch row 1, column 2; inside it row 0, column 1; blue
    patches = patchify(Image.fromarray(values), 32, 48, (0, 0, 0), (1, 1, 1))
    assert patches.shape == (6, 768)
    assert np.argwhere(patches == 1).tolist() == [[1 * 3 + 2, 2 * 256 + 0 * 16 + 1]]


def test_tensors_arrays_and_channels_first_are_the_same_picture():
    image = noise(64, 96)
    array = np.asarray(image)
    processor = NeoImageProcessor(min_pixels=4096)
    expected = processor(images=image, return_tensors="pt")["pixel_values"]
    for other in (
        array,
        array.transpose(2, 0, 1),
        torch.from_numpy(array.transpose(2, 0, 1).copy()),
        torch.from_numpy(array[None].copy()),
        (array / 255.0).astype(np.float32),
    ):
        assert torch.equal(processor(images=other, return_tensors="pt")["pixel_values"], expected)


def test_options_that_would_change_the_arithmetic_are_refused():
    with pytest.raises(ValueError, match="do_resize=False is not possible"):
        NeoImageProcessor()(images=noise(32, 32), do_resize=False)
    with pytest.raises(ValueError, match="must be bicubic"):
        NeoImageProcessor()(images=noise(32, 32), resample=Image.Resampling.NEAREST)
    with pytest.raises(ValueError, match="no picture"):
        NeoImageProcessor()(images=[])


def test_bounds_can_be_given_per_call_without_staying():
    processor = NeoImageProcessor()
    assert processor(images=noise(64, 64), min_pixels=4096)["image_grid_hw"].tolist() == [[4, 4]]
    assert processor(images=noise(64, 64))["image_grid_hw"].tolist() == [[16, 16]]


def test_exif_orientation_is_left_alone_unless_asked_for():
    image = noise(64, 96)
    exif = image.getexif()
    exif[0x0112] = 6
    processor = NeoImageProcessor(min_pixels=4096)
    assert processor(images=image)["image_grid_hw"].tolist() == [[4, 6]]
    assert processor(images=image, apply_exif_orientation=True)["image_grid_hw"].tolist() == [[6, 4]]


def test_a_picture_above_the_limit_is_scaled_with_a_notice(caplog):
    processor = NeoImageProcessor(min_pixels=1024, max_pixels=4096)
    with caplog.at_level(logging.INFO):
        _, grid = processor.patches(noise(128, 128), name="big.png")
    assert grid == (4, 4)
    assert "big.png: 128 x 128 pixels is above the limit of 4096 pixels; scaled to 64 x 64" in caplog.text
    caplog.clear()
    processor.patches(noise(64, 64))
    assert not caplog.records


def test_bounds_come_from_a_models_config_even_in_lists():
    values = {
        "patch_size": 16,
        "downsample_ratio": [0.5],
        "min_pixels": 4096,
        "max_pixels": 8192,
        "hidden_size": 8,
    }
    processor = NeoImageProcessor.from_vision_config(values, max_pixels=9999)
    assert (processor.factor, processor.token_patches) == (32, 4)
    assert (processor.min_pixels, processor.max_pixels) == (4096, 9999)


def test_shared_budget():
    # ARCHITECTURE: max_pixels * 2 / images each, at least min_pixels; one picture has no more than max_pixels
    assert [shared_max_pixels(1000, 300, images) for images in (0, 1, 2, 4, 10)] == [
        1000,
        1000,
        1000,
        500,
        300,
    ]


@given(st.integers(1, 30_000), st.integers(1, 30_000), st.integers(1, 24))
def test_tile_grid_never_costs_more_than_asked(height, width, most):
    rows, columns = tile_grid(height, width, most, 1_000_000)
    assert 1 <= rows * columns <= most
    if height * width <= 1_000_000:
        assert (rows, columns) == (1, 1)


@pytest.mark.parametrize(
    ("height", "width", "most", "expected"),
    [
        (900, 1600, 6, (1, 1)),
        (3000, 4000, 6, (2, 3)),
        (4000, 3000, 6, (3, 2)),
        (1500, 9000, 6, (1, 6)),
        (4000, 4000, 4, (2, 2)),
    ],
)
def test_tile_grid_follows_the_shape(height, width, most, expected):
    assert tile_grid(height, width, most, 2_000_000) == expected


def test_tiles_cover_the_picture_exactly():
    image = noise(101, 157)
    overview, *tiles = tile_image(image, 6, tile_pixels=2048)
    assert overview is image
    rows, columns = tile_grid(101, 157, 6, 2048)
    arrays = [np.asarray(tile) for tile in tiles]
    strips = [np.concatenate(arrays[row * columns : (row + 1) * columns], axis=1) for row in range(rows)]
    assert np.array_equal(np.concatenate(strips), np.asarray(image))
    assert tile_image(image, 1, tile_pixels=2048) == [image]
    with pytest.raises(ValueError, match="max_tiles must be at least 1"):
        tile_image(image, 0)
