"""Draw docs/figures/architecture.png: NEO from pixels to words.

    python docs/figures/architecture.py [FILE.png]

Positions, mask and the table of stages are computed by the project's own code for the little sequence shown.
"""

import sys
from pathlib import Path

import matplotlib
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Rectangle
from PIL import Image, ImageDraw

from neo.model.masks import AttentionMask
from neo.model.positions import number_images, thw_positions
from neo.training.stages import HEAD, LLM_HW, LLM_TEXT, NORM, PATCH, PRE_BUFFER, TOKENS, TRAINED

INK, SOFT, LINE = "#26323f", "#5f6b78", "#9aa5b1"
WORD, PICTURE, BOX = "#dfe6ee", "#f2c888", "#f5f7f9"
T, H, W = "#6f8fb8", "#d9925b", "#7fa97f"
ROWS, COLUMNS = 2, 3
BEFORE, AFTER = ["user", "<img>"], ["</img>", "What", "color", "?", "Red"]
STAGES = {"llm": "base\nLLM", "pt": "PT", "mt": "MT", "sft": "SFT"}
PARTS = (PATCH, PRE_BUFFER, LLM_HW, LLM_TEXT, TOKENS, NORM, HEAD)
LENGTH = len(BEFORE) + ROWS * COLUMNS + len(AFTER)
CELL, LEFT = 0.8, 1.35


def picture() -> Image.Image:
    """A red ball of 96 x 64 pixels, drawn and shown at four times the size for smooth borders."""
    image = Image.new("RGB", (4 * 32 * COLUMNS, 4 * 32 * ROWS), "#fbfaf7")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 196, 384, 256), fill="#e4e0d6")
    draw.ellipse((96, 200, 304, 240), fill="#c9c2b2")
    draw.ellipse((108, 28, 292, 212), fill="#d24b3e")
    return image


def structure() -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (3, L) and mask (L, L) of the sequence."""
    image_token = 9
    tokens = [0] * len(BEFORE) + [image_token] * ROWS * COLUMNS + [0] * len(AFTER)
    grid = torch.tensor([[ROWS, COLUMNS]])
    image_ids = number_images(torch.tensor([tokens]), grid.prod(-1), image_token)
    dense = AttentionMask(torch.zeros_like(image_ids), image_ids).dense
    assert dense is not None
    return thw_positions(image_ids, grid)[:, 0], dense[0, 0]


def box(ax: Axes, x: float, y: float, w: float, h: float, text: str = "", fill: str = BOX, size: float = 11) -> None:
    """A filled box with centred text; (x, y) is its lower left corner."""
    ax.add_patch(Rectangle((x, y), w, h, facecolor=fill, edgecolor=LINE, linewidth=0.8))
    ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=size, color=INK, linespacing=1.35)


def arrow(ax: Axes, start: tuple[float, float], stop: tuple[float, float]) -> None:
    """A thin arrow."""
    style = {"arrowstyle": "-|>", "mutation_scale": 13, "color": SOFT, "linewidth": 1.2}
    ax.add_patch(FancyArrowPatch(start, stop, shrinkA=0, shrinkB=0, **style))


def heading(ax: Axes, x: float, y: float, text: str, note: str = "") -> None:
    """A bold line and a softer one below."""
    ax.text(x, y, text, fontsize=12.5, color=INK, weight="bold", va="top")
    ax.text(x, y - 0.3, note, fontsize=10.5, color=SOFT, va="top", linespacing=1.35)


def draw_pixels(ax: Axes, image: Image.Image) -> None:
    """Top: the picture with its patches and tokens, and the patch embedding."""
    heading(ax, 0.2, 10.4, "1  Pixels", "patches of 16 x 16, tokens of 32 x 32")
    x, y, unit = 0.2, 7.92, 0.9
    ax.imshow(image, extent=(x, x + COLUMNS * unit, y, y + ROWS * unit), interpolation="bilinear", zorder=1)
    for i in range(2 * COLUMNS + 1):
        ax.plot([x + i * unit / 2] * 2, [y, y + ROWS * unit], color=SOFT, lw=1.3 if i % 2 == 0 else 0.4)
    for i in range(2 * ROWS + 1):
        ax.plot([x, x + COLUMNS * unit], [y + i * unit / 2] * 2, color=SOFT, lw=1.3 if i % 2 == 0 else 0.4)

    heading(ax, 4.0, 10.4, "2  Patch embedding", "two convolutions in place of a vision encoder")
    middle = y + ROWS * unit / 2
    arrow(ax, (3.1, middle), (3.9, middle))
    box(ax, 4.0, middle - 0.55, 1.75, 1.1, "conv 16 x 16\nGELU")
    arrow(ax, (5.75, middle), (6.15, middle))
    box(ax, 6.15, middle - 0.55, 1.75, 1.1, "2-D rotary:\ncolumn, row")
    arrow(ax, (7.9, middle), (8.3, middle))
    box(ax, 8.3, middle - 0.55, 1.75, 1.1, "conv 2 x 2 to\ndecoder width")
    arrow(ax, (10.05, middle), (10.5, middle))
    ax.text(10.6, middle, "6 tokens", fontsize=11, color=INK, va="center")


def draw_sequence(ax: Axes, image: Image.Image, positions: torch.Tensor) -> None:
    """Middle: one sequence of words and picture, with three positions under every token."""
    heading(
        ax,
        0.2,
        7.48,
        "3  One sequence",
        "a picture takes one step of t, however large it is; words stand at h = w = 0",
    )
    y = 6.0
    for i in range(LENGTH):
        x, cell = LEFT + i * CELL, i - len(BEFORE)
        if 0 <= cell < ROWS * COLUMNS:
            row, column = divmod(cell, COLUMNS)
            crop = image.crop((128 * column, 128 * row, 128 * column + 128, 128 * row + 128))
            ax.imshow(crop, extent=(x, x + CELL, y, y + CELL), aspect="auto", interpolation="bilinear", zorder=1)
            ax.add_patch(Rectangle((x, y), CELL, CELL, fill=False, edgecolor=LINE, linewidth=0.8, zorder=2))
        else:
            box(ax, x, y, CELL, CELL, (BEFORE + [""] * ROWS * COLUMNS + AFTER)[i], WORD)
        for line, color in enumerate((T, H, W)):
            value = int(positions[line, i])
            ax.text(
                x + CELL / 2,
                y - 0.24 - 0.3 * line,
                str(value),
                ha="center",
                va="center",
                fontsize=11.5,
                color=INK if line == 0 or 0 <= cell < ROWS * COLUMNS else LINE,
            )
            if i == 0:
                ax.text(
                    LEFT - 0.12,
                    y - 0.24 - 0.3 * line,
                    ("t  order", "h  row", "w  column")[line],
                    ha="right",
                    va="center",
                    fontsize=11,
                    color=color,
                    weight="bold",
                )


def draw_mask(ax: Axes, mask: torch.Tensor) -> None:
    """Bottom left: who sees whom."""
    heading(ax, 0.2, 4.7, "4  Who sees whom", "each row sees the filled columns")
    side, x0, top = 0.232, 0.55, 3.6
    for query in range(LENGTH):
        for key in range(LENGTH):
            seen = bool(mask[query, key])
            color = (PICTURE if key > query else "#b9c7d6") if seen else "white"
            ax.add_patch(
                Rectangle(
                    (x0 + key * side, top - (query + 1) * side),
                    side,
                    side,
                    facecolor=color,
                    edgecolor="#e3e7ec",
                    linewidth=0.6,
                )
            )
        kind = PICTURE if len(BEFORE) <= query < len(BEFORE) + ROWS * COLUMNS else WORD
        strip = {"facecolor": kind, "edgecolor": LINE, "linewidth": 0.5}
        ax.add_patch(Rectangle((x0 - 0.22, top - (query + 1) * side), 0.14, side, **strip))
        ax.add_patch(Rectangle((x0 + query * side, top + 0.08), side, 0.14, **strip))
    y = top - LENGTH * side - 0.26
    for x, color, text in ((0.33, "#b9c7d6", "earlier, or itself"), (2.25, PICTURE, "later, same picture")):
        ax.add_patch(Rectangle((x, y - 0.08), 0.17, 0.17, facecolor=color, edgecolor=LINE, linewidth=0.5))
        ax.text(x + 0.25, y, text, fontsize=10.5, color=SOFT, va="center")


def draw_decoder(ax: Axes) -> None:
    """Bottom middle: the layers, and what a head is made of."""
    heading(ax, 4.45, 4.7, "5  One decoder", "Qwen3 layers with three-part heads")
    x, w = 4.45, 3.1
    box(ax, x, 3.05, w, 0.7, "pre-Buffer: new layers\nthat learn to see", PICTURE)
    arrow(ax, (x + w / 2, 3.05), (x + w / 2, 2.83))
    box(ax, x, 2.13, w, 0.7, "layers of the language\nmodel it grew from", WORD)
    arrow(ax, (x + w / 2, 2.13), (x + w / 2, 1.91))
    box(ax, x, 1.51, w, 0.4, "next word:  ?  →  Red")
    ax.text(x, 1.2, "a head in every layer", fontsize=10.5, color=SOFT, va="center")
    for y, label in ((0.72, "query"), (0.36, "key")):
        ax.text(x, y + 0.15, label, fontsize=10.5, color=INK, va="center")
        start = x + 0.68
        for part, width, color in (("T", 1.2, T), ("H", 0.6, H), ("W", 0.6, W)):
            ax.add_patch(Rectangle((start, y), width, 0.3, facecolor=color, edgecolor="white", linewidth=1))
            ax.text(
                start + width / 2,
                y + 0.14,
                part,
                ha="center",
                va="center",
                fontsize=10.5,
                color="white",
                weight="bold",
            )
            start += width
    ax.text(x, 0.15, "value", fontsize=10.5, color=INK, va="center")
    ax.add_patch(Rectangle((x + 0.68, 0.0), 1.2, 0.3, facecolor="#c4cbd3", edgecolor="white", linewidth=1))


def draw_stages(ax: Axes) -> None:
    """Bottom right: what each stage trains."""
    heading(ax, 8.15, 4.7, "6  Stages", "what each one trains; the rest is frozen")
    columns = {stage: 10.36 + 0.5 * i for i, stage in enumerate(STAGES)}
    for stage, x in columns.items():
        ax.text(x, 3.55, STAGES[stage], ha="center", va="center", fontsize=10.5, color=INK, weight="bold")
    for i, part in enumerate(PARTS):
        y = 3.1 - 0.42 * i
        ax.plot([8.15, 12.1], [y + 0.21] * 2, color="#e3e7ec", lw=0.8)
        ax.text(8.15, y, part, fontsize=10.5, color=INK, va="center")
        for stage, x in columns.items():
            if stage == "llm" and part in (PATCH, PRE_BUFFER, LLM_HW):
                ax.text(x, y, "–", ha="center", va="center", color=LINE, fontsize=11)
                continue
            fill = T if part in TRAINED[stage] else "white"
            ax.scatter([x], [y], s=75, facecolor=fill, edgecolor=T if part in TRAINED[stage] else LINE, linewidth=1.1)
    notes = ((T, T, 8.25, "trained"), ("white", LINE, 9.35, "frozen"))
    for fill, edge, x, text in notes:
        ax.scatter([x], [0.15], s=75, facecolor=fill, edgecolor=edge, linewidth=1.1)
        ax.text(x + 0.16, 0.15, text, fontsize=10.5, color=SOFT, va="center")
    ax.text(10.4, 0.15, "–  not there yet", fontsize=10.5, color=SOFT, va="center")


def main(file: Path) -> None:
    """Draw and save."""
    matplotlib.use("Agg")
    plt.rcParams["font.family"] = "DejaVu Sans"
    figure = plt.figure(figsize=(12.3, 10.6), dpi=130)
    ax = figure.add_axes((0, 0, 1, 1))
    image = picture()
    positions, mask = structure()
    draw_pixels(ax, image)
    draw_sequence(ax, image, positions)
    draw_mask(ax, mask)
    draw_decoder(ax)
    draw_stages(ax)
    for y in (7.65, 4.95):
        ax.plot([0.2, 12.1], [y] * 2, color="#e3e7ec", lw=1)
    ax.set(xlim=(0, 12.3), ylim=(-0.15, 10.6), aspect="equal")
    ax.axis("off")
    figure.savefig(file, facecolor="white")
    plt.close(figure)
    with Image.open(file) as drawn:  # few colours: a palette halves the file
        drawn.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_suffix(".png"))
