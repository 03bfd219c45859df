"""Damage that pictures meet on their way: noise, blur, exposure, jpeg."""

import io

import numpy as np
from PIL import Image, ImageFilter

from neo.synthetic.sample import between, chance, uniform


def degrade(rng: np.random.Generator, image: Image.Image, fine: bool = False) -> Image.Image:
    """The picture with mild random damage; two in three stay clean.

    `fine` is for pictures with small letters: only damage that leaves them legible.
    """
    if chance(rng, 0.65):
        return image
    if chance(rng, 0.3):
        image = image.filter(ImageFilter.GaussianBlur(uniform(rng, 0.3, 0.5 if fine else 1.0)))
    if chance(rng, 0.3):
        low, high = uniform(rng, 0, 25), uniform(rng, 230, 255)
        image = image.point([round(low + (high - low) * level / 255) for level in range(256)] * 3)
    if chance(rng, 0.35):
        sigma = uniform(rng, 2, 6 if fine else 12)
        noise = rng.standard_normal((image.height, image.width, 1), dtype=np.float32) * sigma
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
    if chance(rng, 0.4):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=between(rng, 70 if fine else 40, 95), subsampling=0 if fine else 2)
        image = Image.open(buffer).convert("RGB")
    return image
