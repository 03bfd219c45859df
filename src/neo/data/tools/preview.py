"""A page that shows what the model will really see of some records: pictures, patches, tokens, and what is learned.

Everything on it is read back from what the processor made of a record, `Encoded`, the very tensors that training
gets. The page is one file that needs no network, and its rules forbid it any.
"""

import base64
import hashlib
import html
import io
import unicodedata
from collections.abc import Iterable, Sequence
from importlib.resources import files
from itertools import count
from string import Template
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from neo.data.sources import Source
from neo.data.tools.walk import Track, shares, some, untracked, walk, where
from neo.model.config import IGNORE
from neo.processing import chat
from neo.processing.image import NeoImageProcessor
from neo.processing.processor import Encoded, NeoProcessor

EXACT_PIXELS = 512 * 512
"""Pictures of so many pixels are shown without loss, larger ones as JPEG, or the page would be too long."""
SMALL = 256
"""Pictures less wide than this are enlarged."""
_FILES = ("html", "css", "js")


def preview(
    sources: Sequence[Source],
    processor: NeoProcessor,
    title: str,
    number: int = 24,
    seed: int = 0,
    max_seq_length: int | None = None,
    track: Track = untracked,
) -> str:
    """The page, as HTML.

    Args:
        sources: where the records come from; each gives about as many of them.
        processor: that of the model, as in training.
        title: what the page says it shows.
        number: records in all.
        seed: which ones.
        max_seq_length: tokens that fit; longer records are marked.
        track: shows the progress.
    """
    indices = [some(source, share, seed) for source, share in zip(sources, shares(sources, number), strict=True)]
    cards = list(walk(sources, indices, _MakeCard(processor, max_seq_length), track=track))
    page, style, script = (files(__package__).joinpath(f"preview.{kind}").read_text("utf-8") for kind in _FILES)
    return Template(page).substitute(
        rules=f"default-src 'none'; img-src data:; style-src {inline_hash(style)}; script-src {inline_hash(script)}",
        title=shown(title),
        style=style,
        script=script,
        number=len(cards),
        side=processor.image_processor.factor,
        families=_options(card.family for card in cards),
        sources=_options(card.source for card in cards),
        cards="".join(card.html for card in cards),
    )


def shown(text: str) -> str:
    """Text of anybody's as HTML; characters that cannot be seen, or turn the writing around, by their number."""
    visible = (one if one == "\n" or unicodedata.category(one)[0] != "C" else f"⟨U+{ord(one):04X}⟩" for one in text)
    return html.escape("".join(visible))


def seen_picture(patches: torch.Tensor, rows: int, columns: int, images: NeoImageProcessor) -> Image.Image:
    """The 8-bit picture that patches (rows * columns, 768) were made from."""
    side = images.patch_size
    pixels = patches.numpy().reshape(rows, columns, 3, side, side).transpose(0, 3, 1, 4, 2)
    pixels = pixels * np.asarray(images.image_std) + np.asarray(images.image_mean)
    pixels = np.rint(pixels * 255).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels.reshape(rows * side, columns * side, 3))


class _Card(NamedTuple):
    """A record on the page."""

    family: str
    source: str
    html: str


class _MakeCard:
    """A record to what the page shows of it."""

    def __init__(self, processor: NeoProcessor, max_seq_length: int | None) -> None:
        self.processor, self.max_seq_length = processor, max_seq_length

    def __call__(self, source: Source, index: int) -> _Card:
        family, title = "", f"{source.name}[{index}]"
        try:
            record = source[index]
            family, title = record.family, where(record)
            encoded = self.processor.encode(record.messages, share_pixels=True)
            roles = [turn.role for turn in chat.parse(record.messages).turns]
            body = self._about(encoded, family) + self._pictures(encoded) + self._turns(encoded, roles)
        except ValueError as error:
            body = f'<p class="error">{shown(str(error))}</p>'
        labels = f'data-family="{shown(family)}" data-source="{shown(source.name)}"'
        return _Card(family, source.name, f"<article {labels}><h2>{shown(title)}</h2>{body}</article>\n")

    def _about(self, encoded: Encoded, family: str) -> str:
        length = len(encoded.input_ids)
        learned = int((encoded.labels != IGNORE).sum())
        pictures = int((encoded.input_ids == self.processor.ids.image).sum())
        about = f"<p><b>{length}</b> tokens: {learned} learned, {pictures} of pictures"
        if family:
            about += f" · family {shown(family)}"
        if self.max_seq_length is not None and length > self.max_seq_length:
            about += f'</p><p class="error">longer than {self.max_seq_length} tokens: left out of training'
        return about + "</p>"

    def _pictures(self, encoded: Encoded) -> str:
        images = self.processor.image_processor
        figures, start = [], 0
        for number, (rows, columns) in enumerate(encoded.image_grid_hw.tolist(), 1):
            stop = start + rows * columns
            picture = seen_picture(encoded.pixel_values[start:stop], rows, columns, images)
            figures.append(_figure(picture, number, images.patch_size, images.factor))
            start = stop
        return f'<div class="pictures">{"".join(figures)}</div>' if figures else ""

    def _turns(self, encoded: Encoded, roles: list[str]) -> str:
        ids, learned = encoded.input_ids.tolist(), (encoded.labels != IGNORE).tolist()
        starts = [place for place, token in enumerate(ids) if token == self.processor.ids.im_start]
        tokens = list(self._tokens(ids, learned, encoded.image_grid_hw.tolist()))
        written = []
        for role, start, stop in zip(roles, starts, [*starts[1:], len(ids)], strict=True):
            said = "".join(tokens[start:stop])
            written.append(f'<section class="{role}"><h3>{role}</h3><p class="said">{said}</p></section>')
        return "".join(written)

    def _tokens(self, ids: list[int], learned: list[bool], grids: list[list[int]]) -> list[str]:
        """One piece of HTML for each token; of a picture's tokens the first stands for all."""
        tokenizer, special = self.processor.tokenizer, self.processor.ids
        images = self.processor.image_processor
        specials, pictures = set(special), count()
        written: list[str] = []
        whole: list[int] = []
        for place, token in enumerate(ids):
            if token == special.image:
                text = ""
                if ids[place - 1] == special.image_start:
                    number = next(pictures)
                    rows, columns = (side * images.patch_size // images.factor for side in grids[number])
                    size = f"{columns} x {rows} = {rows * columns} tokens"
                    text = f'<span class="place">picture {number + 1}: {size}</span>'
                written.append(text)
                continue
            whole = [*whole, token]
            text = tokenizer.decode(whole)
            if text.endswith("\ufffd") and token not in specials:
                text = "…"  # some bytes of a character, which the token with its last ones shows
            else:
                whole = []
            text = shown(text).replace("\n", "↵\n")
            name = "mark" if learned[place] else "span"
            kind = ' class="special"' if token in specials else ""
            written.append(f'<{name}{kind} title="{place}: id {token}">{text}</{name}>')
        return written


def _figure(picture: Image.Image, number: int, patch: int, token: int) -> str:
    """A picture with the grid of its patches and tokens over it."""
    width, height = picture.size
    exact = width * height <= EXACT_PIXELS
    file = io.BytesIO()
    picture.save(file, "PNG" if exact else "JPEG", quality=90)
    address = f"data:image/{'png' if exact else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}"
    size = f'width="{width}" height="{height}"' + (' class="small"' if width < SMALL else "")
    paths = "".join(
        f'<path class="{name}" d="{_lines(width, height, step)}"/>'
        for name, step in (("patches", patch), ("tokens", token))
    )
    return (
        f'<figure><div class="seen"><img src="{address}" alt="picture {number}" {size}>'
        f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none">{paths}</svg></div>'
        f"<figcaption>picture {number}: {width} x {height} pixels, {width // patch} x {height // patch} patches, "
        f"{width // token} x {height // token} = {height * width // token**2} tokens</figcaption></figure>"
    )


def _lines(width: int, height: int, step: int) -> str:
    """A grid as an SVG path."""
    across = (f"M0 {y}H{width}" for y in range(0, height + 1, step))
    down = (f"M{x} 0V{height}" for x in range(0, width + 1, step))
    return "".join([*across, *down])


def _options(values: Iterable[str]) -> str:
    names = map(shown, sorted({value for value in values if value}))
    return "".join(f'<option value="{name}">{name}</option>' for name in names)


def inline_hash(text: str) -> str:
    """What allows one inline script or style in a page's rules."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
