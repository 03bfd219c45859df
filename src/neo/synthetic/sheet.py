"""A sheet of samples to look at."""

import textwrap
from pathlib import Path

from PIL import Image, ImageDraw

from neo.synthetic.fonts import font
from neo.synthetic.generate import FAMILIES, generate


def contact_sheet(path: str | Path, seed: int = 0, per_family: int = 6, split: str = "test") -> None:
    """Saves a PNG with one row per family: pictures, and under each its questions and answers."""
    cell_width, cell_height = 262, 370
    sheet = Image.new("RGB", (cell_width * per_family, cell_height * len(FAMILIES)), (250, 250, 250))
    draw = ImageDraw.Draw(sheet)
    for row, family in enumerate(FAMILIES):
        for column in range(per_family):
            x, y = column * cell_width + 4, row * cell_height + 4
            sample = generate(seed, column, split, {family: 1.0})
            if sample.image is not None:
                sheet.paste(sample.image, (x, y))
                draw.rectangle(
                    (x - 1, y - 1, x + sample.image.width, y + sample.image.height), outline="#999999"
                )
                y += sample.image.height + 4
            for turn in sample.turns:
                lines = textwrap.wrap(turn.question, 40) + textwrap.wrap("→ " + turn.answer, 40)
                draw.text((x, y), "\n".join(lines), fill="black", font=font("DejaVuSans", 11))
                y += 14 * len(lines) + 4
    sheet.save(path)
