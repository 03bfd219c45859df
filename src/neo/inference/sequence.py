"""A request on its way through the engine: its tokens, where they stand, and which of them are computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from neo.inference.cache import Store
from neo.inference.forward import Picture
from neo.inference.generation import Generation
from neo.processing.processor import Encoded


@dataclass(frozen=True)
class Layout:
    """Where everything in a prompt stands."""

    positions_3L: Tensor
    """t, h, w of each token."""
    pictures: Sequence[Picture]
    contents_L: np.ndarray
    """What stands at each token: its id, or a number below 0 for a picture's pixels."""


def lay_out(prompt: Encoded, positions_3L: Tensor, image_token_id: int, secret: bytes) -> Layout:
    """Find the pictures of a prompt.

    Their numbers are keyed hashes that only this process can make, so that nobody can aim at another's picture.
    """
    contents_L = prompt.input_ids.numpy().astype(np.int64)
    places = np.flatnonzero(contents_L == image_token_id)
    runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else []
    pictures, patch = [], 0
    for run, (rows, columns) in zip(runs, prompt.image_grid_hw.tolist(), strict=True):
        pixels = prompt.pixel_values[patch : patch + rows * columns].contiguous()
        patch += rows * columns
        digest = blake2b(pixels.numpy().data, digest_size=8, key=secret, salt=rows.to_bytes(8, "little"))
        content = -1 - (int.from_bytes(digest.digest(), "little") >> 1)
        pictures.append(Picture(int(run[0]), int(run[-1]) + 1, content))
        contents_L[run] = content
    return Layout(positions_3L, pictures, contents_L)


class TokenSequence:
    """All tokens of a request that are known, and the store of those that are computed."""

    def __init__(self, generation: Generation, layout: Layout) -> None:
        """Begin; a prompt's further answers have the same layout."""
        self.generation, self.request, self.layout = generation, generation.request, layout
        self.ids: list[int] = self.request.prompt.input_ids.tolist()
        self.prompt_length = len(self.ids)
        self.pictures = layout.pictures
        self.store: Store | None = None
        self.begun = False
        """Whether it has run before, also where it has given its store up since."""
        self.generator = self.request.sampling.generator()
        self.constraint = self.request.constraint() if self.request.constraint else None

    @property
    def computed(self) -> int:
        """Tokens in the store."""
        return self.store.length if self.store else 0

    @property
    def pending(self) -> int:
        """Known tokens that are still to be computed."""
        return len(self.ids) - self.computed

    @property
    def prefilling(self) -> bool:
        """Whether part of the prompt is to be computed."""
        return self.computed < self.prompt_length

    @property
    def most(self) -> int:
        """Tokens that it can come to."""
        return self.prompt_length + self.request.max_new_tokens

    def contents(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """What stands at these tokens, see `Layout`."""
        said = self.ids[max(start, self.prompt_length) : stop]
        return np.concatenate([self.layout.contents_L[start:stop], np.array(said, np.int64)])

    def positions(self, start: int, stop: int) -> Tensor:
        """(3, stop - start) t, h, w; in the answer words count on in t and stand at h = w = 0."""
        prompt_3L = self.layout.positions_3L
        said = torch.arange(max(start, self.prompt_length), max(stop, self.prompt_length)) - self.prompt_length
        said_t = said + int(prompt_3L[0, -1]) + 1
        return torch.cat([prompt_3L[:, start:stop], F.pad(said_t[None], (0, 0, 0, 2))], dim=1)

    def chunk_end(self, most: int) -> int:
        """Where the next chunk ends: outside pictures, behind the first one where that is larger than allowed."""
        stop = min(self.computed + most, len(self.ids))
        for picture in self.pictures:
            if picture.start < stop < picture.stop:
                return picture.start if picture.start > self.computed else picture.stop
        return stop
