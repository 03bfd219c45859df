"""Pictures a second that one core makes ready for the network, against the reference pipeline's arithmetic.

    python benchmarks/data.py
    python benchmarks/data.py --sizes 1024x768 --rounds 50 --save

A picture goes the way it goes in training: the bytes of a JPEG file are decoded, resized, normalised and cut
into patches. The reference does the same with Pillow and torch, step by step over the whole picture, as
torchvision's ToTensor and Normalize do. Both give the same patches, which is checked. Times are processor time
of one thread, the median of rounds that alternate between the two, so that other work on the machine disturbs
little. The pictures are drawn: colours that change smoothly, with grain, at a JPEG quality of 90.
"""

import io
import logging
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, features
from report import make_parser, processor, save
from rich.console import Console
from rich.table import Table

from neo.processing.image import IMAGE_MEAN, IMAGE_STD, NeoImageProcessor, load_image, smart_resize

GPU_TOKENS = 10_000
"""Tokens a second that one GPU is taken to learn from."""
MEAN, STD = (torch.tensor(values)[:, None, None] for values in (IMAGE_MEAN, IMAGE_STD))
PATCH = 16


def photo(width: int, height: int) -> bytes:
    """The JPEG file of a picture about as hard to decode as a photograph of that size."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    grainy = (smooth + generator.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grainy).save(file, "JPEG", quality=90)
    return file.getvalue()


def reference_decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def reference_resize(image: Image.Image, processor: NeoImageProcessor) -> Image.Image:
    limits = processor.factor, processor.min_pixels, processor.max_pixels
    height, width = smart_resize(image.height, image.width, *limits)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def reference_patches(image: Image.Image) -> torch.Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    pixels = pixels.clone().sub_(MEAN).div_(STD)
    _, height, width = pixels.shape
    cut = pixels.view(3, height // PATCH, PATCH, width // PATCH, PATCH)
    return cut.permute(1, 3, 0, 2, 4).reshape(-1, 3 * PATCH**2)


def processor_seconds(works: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median processor time of each piece of work, after one warm-up."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds + 1):
        for work, measured in zip(works, times, strict=True):
            start = time.process_time()
            work()
            measured.append(time.process_time() - start)
    return [statistics.median(measured[1:]) for measured in times]


def measure(width: int, height: int, rounds: int) -> list[dict]:
    """Two rows: this project's pipeline and the reference's."""
    processor = NeoImageProcessor()
    data = photo(width, height)
    image = load_image(data)
    resized = reference_resize(image, processor)

    def ours() -> np.ndarray:
        return processor.patches(load_image(data), notice=logging.DEBUG)[0]

    def reference() -> torch.Tensor:
        return reference_patches(reference_resize(reference_decode(data), processor))

    error = np.abs(ours() - reference().numpy()).max()
    assert error < 1e-5, f"the two pipelines differ by {error}"
    tokens = resized.width * resized.height // processor.factor**2
    decode, decode_reference, resize, patches, patches_reference, whole, whole_reference = processor_seconds(
        [
            lambda: load_image(data),
            lambda: reference_decode(data),
            lambda: reference_resize(image, processor),
            lambda: processor.patches(resized),
            lambda: reference_patches(resized),
            ours,
            reference,
        ],
        rounds,
    )
    about = {"picture": f"{width}x{height}", "file_kib": len(data) // 1024, "tokens": tokens}
    return [
        {
            **about,
            "pipeline": name,
            "decode_ms": stages[0] * 1000,
            "resize_ms": resize * 1000,
            "normalise_and_cut_ms": stages[1] * 1000,
            "pictures_per_s_per_core": 1 / seconds,
            "tokens_per_s_per_core": tokens / seconds,
            "cores_per_gpu": GPU_TOKENS * seconds / tokens,
        }
        for name, stages, seconds in (
            ("neo", (decode, patches), whole),
            ("reference", (decode_reference, patches_reference), whole_reference),
        )
    ]


def show(rows: list[dict]) -> None:
    console = Console(width=112)
    table = Table(title=f"{processor()}, one core, Pillow {Image.__version__}, torch {torch.__version__}")
    columns = {
        "picture": ("picture", ""),
        "tokens": ("tokens", ""),
        "pipeline": ("pipeline", ""),
        "decode_ms": ("decode ms", ".1f"),
        "resize_ms": ("resize ms", ".1f"),
        "normalise_and_cut_ms": ("cut ms", ".1f"),
        "pictures_per_s_per_core": ("pictures/s", ".1f"),
        "tokens_per_s_per_core": ("tokens/s", ",.0f"),
        "cores_per_gpu": ("cores/GPU", ".2f"),
    }
    for title, _ in columns.values():
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*(format(row[name], form) for name, (_, form) in columns.items()))
    console.print(table)
    worst = max((row for row in rows if row["pipeline"] == "neo"), key=lambda row: row["cores_per_gpu"])
    console.print(
        f"A GPU that learns from {GPU_TOKENS:,} tokens a second is fed by {worst['cores_per_gpu']:.2f} cores "
        f"even if all of them are tokens of {worst['picture']} pictures."
    )


def size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return int(width), int(height)


def main() -> None:
    parser = make_parser(__doc__, "data_cpu")
    sizes = ["640x480", "1024x768", "2048x1536", "4000x3000"]
    parser.add_argument("--sizes", nargs="+", type=size, default=[size(text) for text in sizes], help=" ".join(sizes))
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for width, height in args.sizes for row in measure(width, height, args.rounds)]
    show(rows)
    if args.save:
        report = {
            "pillow": Image.__version__,
            "libjpeg_turbo": features.version("libjpeg_turbo"),
            "gpu_tokens_per_s": GPU_TOKENS,
            "rows": rows,
        }
        save("data_cpu", report)


if __name__ == "__main__":
    main()
