"""Pixels to what the network reads: resize, normalise, cut into patches, as the published model does.

Sizes: a patch is 16 x 16 pixels, a token 2 x 2 patches (32 x 32 pixels), so a picture resized to (H, W) costs
H * W / 1024 tokens. `pixel_values` is (patches of all pictures, 768) float32, a patch flattened channel-first
(3, 16, 16), patches row-major; `image_grid_hw` is (pictures, 2) int64, rows and columns in PATCHES.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import load_image as fetch_image
from transformers.processing_utils import ImagesKwargs

from neo.model.config import IMAGE_MEAN, IMAGE_STD, NeoConfig

from .picture import MAX_ASPECT_RATIO, check_aspect_ratio, is_web_address, load_image

__all__ = [
    "IMAGE_MEAN",
    "IMAGE_STD",
    "MAX_ASPECT_RATIO",
    "NeoImageProcessor",
    "load_image",
    "open_images",
    "patchify",
    "shared_max_pixels",
    "smart_resize",
    "tile_grid",
    "tile_image",
]

logger = logging.getLogger(__name__)


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The size (height, width) in pixels to which a picture is resized: multiples of `factor`.

    Each side is rounded to the nearest multiple of `factor` (half to even, at least one). Where the area is
    then above `max_pixels` the sides are scaled down and floored to multiples, where below `min_pixels`
    scaled up and ceiled.

    Raises:
        ValueError: a side below 1, sides more than 200 : 1, or min_pixels above max_pixels.
    """
    if height < 1 or width < 1:
        raise ValueError(f"the picture is {width} x {height} pixels; both sides must be at least 1.")
    if min_pixels > max_pixels:
        raise ValueError(f"min_pixels ({min_pixels}) is above max_pixels ({max_pixels}).")
    check_aspect_ratio(height, width)
    new_height = max(factor, round(height / factor) * factor)
    new_width = max(factor, round(width / factor) * factor)
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        new_height = max(factor, math.floor(height / shrink / factor) * factor)
        new_width = max(factor, math.floor(width / shrink / factor) * factor)
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


def patchify(
    image_rgb: Image.Image,
    height: int,
    width: int,
    mean: Sequence[float] = IMAGE_MEAN,
    std: Sequence[float] = IMAGE_STD,
    patch_size: int = 16,
) -> np.ndarray:
    """Resize an RGB picture to (height, width) pixels (bicubic), normalise it and cut it into patches.

    Returns:
        float32 (height/patch_size * width/patch_size, 3 * patch_size**2), patches row-major, each
        channel-first.
    """
    if image_rgb.size != (width, height):
        image_rgb = image_rgb.resize((width, height), Image.Resampling.BICUBIC)
    rows, columns, area = height // patch_size, width // patch_size, patch_size**2
    pixels = np.asarray(image_rgb).reshape(rows, patch_size, columns, patch_size, 3)
    patches = np.empty((rows, columns, 3 * area), np.float32)
    # (x / 255 - mean) / std as one product and one difference
    scale = np.repeat(1 / (255 * np.asarray(std)), area).astype(np.float32)
    shift = np.repeat(np.asarray(mean) / np.asarray(std), area).astype(np.float32)
    for strip, row in zip(pixels, patches, strict=True):  # a row at a time: its floats stay in the cache
        row.reshape(columns, 3, patch_size, patch_size)[...] = strip.transpose(1, 3, 0, 2)
        row *= scale
        row -= shift
    return patches.reshape(rows * columns, -1)


def shared_max_pixels(max_pixels: int, min_pixels: int, images: int) -> int:
    """Most pixels for each of `images` pictures that share one conversation's budget while training.

    One or two pictures may have `max_pixels` each; of three and more, each has max_pixels * 2 / images, and
    never less than `min_pixels`. So the pictures of one record cost at most twice what one picture may cost.
    """
    return max_pixels if images < 2 else max(min_pixels, max_pixels * 2 // images)


def tile_grid(height: int, width: int, max_tiles: int, tile_pixels: int) -> tuple[int, int]:
    """Rows and columns into which a picture is cut; (1, 1) where cutting brings nothing.

    No more tiles than `max_tiles`, nor than are needed for each to fit `tile_pixels` without shrinking.
    Among those the grid with most tiles whose sides are 3 : 2 at most, else the one with squarest tiles.
    """
    most = min(max_tiles, math.ceil(height * width / tile_pixels))
    grids = [(rows, columns) for rows in range(1, most + 1) for columns in range(1, most // rows + 1)]
    stretch = {grid: abs(math.log(height * grid[1] / (width * grid[0]))) for grid in grids}
    squarish = [grid for grid in grids if stretch[grid] <= math.log(1.5) + 1e-9 and grid != (1, 1)]
    if squarish:
        return max(squarish, key=lambda grid: (grid[0] * grid[1], -stretch[grid]))
    return min(grids, key=stretch.__getitem__, default=(1, 1))


def tile_image(image: Image.Image, max_tiles: int, tile_pixels: int = 4_194_304) -> list[Image.Image]:
    """Cut a very large picture: [overview, tile, tile, ...], tiles row-major, each a picture of its own.

    `tile_pixels` is the processor's `max_pixels`; a picture that fits it comes back alone. The overview is
    the whole picture, which the processor scales down to `max_pixels`.

    Cost: each entry is one picture of tokens, at most max_pixels / 1024 plus its `<img>` and `</img>`. With
    the defaults a picture of 8000 x 6000 pixels and max_tiles = 6 costs 7 pictures, at most 7 * 4096 = 28672
    tokens, instead of 4096.

    Raises:
        ValueError: max_tiles below 1.
    """
    if max_tiles < 1:
        raise ValueError(f"max_tiles must be at least 1, not {max_tiles}.")
    rows, columns = tile_grid(image.height, image.width, max_tiles, tile_pixels)
    if rows * columns == 1:
        return [image]
    top = [round(row * image.height / rows) for row in range(rows + 1)]
    left = [round(column * image.width / columns) for column in range(columns + 1)]
    tiles = [
        image.crop((left[column], top[row], left[column + 1], top[row + 1]))
        for row in range(rows)
        for column in range(columns)
    ]
    return [image, *tiles]


class NeoImageKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """What `NeoImageProcessor` takes besides the options common to all image processors."""

    patch_size: int
    downsample_ratio: float
    min_pixels: int
    max_pixels: int
    apply_exif_orientation: bool


class NeoImageProcessor(PilBackend):
    """Pictures to `pixel_values` (patches, 768) and `image_grid_hw` (pictures, 2), as transformers asks.

    Args:
        min_pixels, max_pixels: bounds of the resized area in pixels.
        patch_size: side of a patch in pixels.
        downsample_ratio: tokens per patch along a side (0.5); sides become multiples of
            patch_size / downsample_ratio pixels.
        apply_exif_orientation: turn pictures upright first. Off, as in the published arithmetic;
            `NeoProcessor.encode` turns them upright by itself.
    """

    valid_kwargs = NeoImageKwargs
    model_input_names = ["pixel_values", "image_grid_hw"]
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    resample = Image.Resampling.BICUBIC
    image_mean = IMAGE_MEAN
    image_std = IMAGE_STD
    patch_size = 16
    downsample_ratio = 0.5
    min_pixels = 65_536
    max_pixels = 4_194_304
    apply_exif_orientation = False

    @classmethod
    def from_vision_config(cls, values: Mapping[str, Any], **kwargs: Any) -> Self:
        """Build from the `vision_config` part of a model's config.json, which may hold one-element lists."""
        names = ("patch_size", "downsample_ratio", "min_pixels", "max_pixels")
        found = {name: values[name] for name in names if values.get(name) is not None}
        found = {name: value[0] if isinstance(value, list) else value for name, value in found.items()}
        return cls(**{**found, **kwargs})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Self:  # type: ignore[override]
        """As in transformers, but also for published checkpoints without image processor file.

        Some of them have the file of a CLIP processor that was never used. In both cases the settings come
        from the `vision_config` of the model's config.json.

        Raises:
            ValueError: there is neither.
        """
        path = pretrained_model_name_or_path
        try:
            values, _ = cls.get_image_processor_dict(path, **kwargs)
        except OSError:
            values = {"image_processor_type": "no file"}
        types = [values.get(key) for key in ("image_processor_type", "feature_extractor_type")]
        if all(name in (None, "NeoImageProcessor") for name in types):
            return super().from_pretrained(path, **kwargs)
        config, kwargs = NeoConfig.get_config_dict(path, **kwargs)
        if not config.get("vision_config"):
            raise ValueError(f"{path} has neither an image processor of NEO nor a vision_config in config.json.")
        given = {name: kwargs[name] for name in NeoImageKwargs.__annotations__ if name in kwargs}
        return cls.from_vision_config(config["vision_config"], **given)

    @property
    def factor(self) -> int:
        """Sides of a resized picture are multiples of this many pixels: the side of one token."""
        return round(self.patch_size / self.downsample_ratio)

    @property
    def token_patches(self) -> int:
        """Patches that become one token."""
        return round(1 / self.downsample_ratio) ** 2

    def patches(
        self,
        image_rgb: Image.Image,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        notice: int = logging.WARNING,
        name: str = "picture",
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """One RGB picture to its patches (n, 768) float32 and its grid (rows, columns) in patches.

        A picture above `max_pixels` is scaled down, with a line in the log at level `notice`.
        """
        min_pixels = self.min_pixels if min_pixels is None else min_pixels
        max_pixels = self.max_pixels if max_pixels is None else max_pixels
        height, width = smart_resize(image_rgb.height, image_rgb.width, self.factor, min_pixels, max_pixels)
        if image_rgb.width * image_rgb.height > max_pixels:
            logger.log(
                notice,
                "%s: %d x %d pixels is above the limit of %d pixels; scaled to %d x %d.",
                name,
                *image_rgb.size,
                max_pixels,
                width,
                height,
            )
        patches = patchify(image_rgb, height, width, self.image_mean, self.image_std, self.patch_size)
        return patches, (height // self.patch_size, width // self.patch_size)

    def _validate_preprocess_kwargs(self, **kwargs: Any) -> None:  # type: ignore[override]
        for name in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
            if not kwargs[name]:
                raise ValueError(
                    f"{name}=False is not possible: the model reads only resized, normalised RGB pictures."
                )
        if kwargs.get("resample") not in (None, Image.Resampling.BICUBIC):
            raise ValueError("resample must be bicubic: the model was trained on pictures resized that way.")

    def _preprocess_image_like_inputs(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """What `preprocess` calls once its keyword arguments are complete and checked."""
        settings = NeoImageProcessor(**{name: kwargs[name] for name in _SETTINGS})
        pictures = open_images(images, kwargs["input_data_format"], settings.apply_exif_orientation)
        found = [settings.patches(picture) for picture in pictures]
        if not found:
            raise ValueError("no picture was given to the image processor.")
        data = {
            "pixel_values": np.concatenate([patches for patches, _ in found]),
            "image_grid_hw": np.array([grid for _, grid in found], dtype=np.int64),
        }
        return BatchFeature(data, tensor_type=kwargs["return_tensors"])


_SETTINGS = (
    "patch_size",
    "downsample_ratio",
    "min_pixels",
    "max_pixels",
    "apply_exif_orientation",
    "image_mean",
    "image_std",
)


def open_images(images: Any, data_format: Any = None, exif: bool = False) -> list[Image.Image]:
    """RGB pictures of whatever transformers' image processors accept: any nesting of lists, also of web
    addresses (fetched), torch tensors, arrays with channels first, and 4-D arrays as batches of pictures.
    """
    if isinstance(images, list | tuple):
        return [image for nested in images for image in open_images(nested, data_format, exif)]
    if is_web_address(images):
        return [load_image(fetch_image(images), images, exif)]
    if hasattr(images, "detach"):  # a torch tensor
        images = images.detach().cpu().numpy()
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return [image for one in images for image in open_images(one, data_format, exif)]
    if isinstance(images, np.ndarray) and images.ndim == 3:
        guess = images.shape[0] in (1, 3, 4) and images.shape[2] not in (1, 3, 4)
        if guess if data_format is None else getattr(data_format, "value", data_format) == "channels_first":
            images = np.moveaxis(images, 0, -1)
    return [load_image(images, exif=exif)]
