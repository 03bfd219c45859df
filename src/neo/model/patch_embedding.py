"""Pixels to token-wide vectors: two small convolutions with a rotation in between.

The convolutions do not overlap, so each is one matrix product over flattened patches; the modules are `Conv2d` for
the sake of their published weight shapes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from neo.model.config import NeoVisionConfig
from neo.model.positions import grid_rows_and_columns
from neo.model.rope import rotate_patches

FREQUENCIES = 6
"""Cosines along each side that the fresh filters are mixed from."""
FILTER_STD = 0.02
"""Root mean square of a fresh filter's weights."""
CONTRAST = 5.0
"""How much stronger the fresh filters without a mean are; measured in docs/experiments.md."""


class PatchConvolution(nn.Conv2d):
    """Pixels to channels, patch by patch."""

    @torch.no_grad()
    def start_smooth(self) -> None:
        """Draw fresh filters as smooth patterns, so that edges and colours come through from the first step.

        Filters of white noise answer mostly to a patch's mean colour and hardly to the shapes in it. These are random
        mixtures of low-frequency cosines; three in four have no mean and are `CONTRAST` times as strong.
        """
        channels_out, channels_in, side, _ = self.weight.shape
        k = torch.arange(min(FREQUENCIES, side))
        waves = torch.cos(torch.pi / side * (torch.arange(side) + 0.5) * k[:, None])
        mixture = torch.randn(channels_out, channels_in, len(k), len(k)) / (1 + k[:, None] + k)
        without_mean = 3 * channels_out // 4
        mixture[:without_mean, :, 0, 0] = 0
        patterns = torch.einsum("oifg,fy,gx->oiyx", mixture, waves, waves)
        patterns *= FILTER_STD * patterns[0].numel() ** 0.5 / patterns.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        patterns[:without_mean] *= CONTRAST
        init.copy_(self.weight, patterns)


class PatchEmbedding(nn.Module):
    """16 x 16 patches to `hidden_size` channels, GELU, 2-D rotary, then 2 x 2 patches to one decoder-wide token."""

    def __init__(self, config: NeoVisionConfig) -> None:
        super().__init__()
        self.config = config
        self.merge = config.merge_size
        patch, width = config.patch_size, int(config.llm_hidden_size)  # type: ignore[arg-type]
        self.patch_embedding = PatchConvolution(config.num_channels, config.hidden_size, patch, stride=patch)
        self.dense_embedding = nn.Conv2d(config.hidden_size, width, self.merge, stride=self.merge)

    def forward(self, pixel_values: Tensor, image_grid_hw: Tensor) -> Tensor:
        """Embed the patches of any number of pictures.

        Args:
            pixel_values: (patches of all pictures, channels * patch_size^2), each patch flattened channel-first.
            image_grid_hw: (pictures, 2) rows and columns of each picture in PATCHES.

        Returns:
            (tokens of all pictures, decoder width), each picture row-major.

        Raises:
            ValueError: the grids do not add up to the number of patches, or do not divide into tokens.
        """
        self._check(pixel_values, image_grid_hw)
        conv, dense = self.patch_embedding, self.dense_embedding
        x_NC = F.gelu(F.linear(pixel_values.to(conv.weight.dtype), conv.weight.flatten(1), conv.bias))
        rows_N, columns_N = grid_rows_and_columns(image_grid_hw)
        x_NC = rotate_patches(x_NC, rows_N, columns_N, self.config.rope_theta_vision)
        x_TMC = x_NC[self._token_order(rows_N, columns_N, image_grid_hw)].unflatten(0, (-1, self.merge**2))
        return F.linear(x_TMC.transpose(1, 2).flatten(1), dense.weight.flatten(1), dense.bias)

    def _token_order(self, rows_N: Tensor, columns_N: Tensor, image_grid_hw: Tensor) -> Tensor:
        """The patches in the order in which tokens take them up: token by token, row-major inside a token."""
        patches = image_grid_hw.prod(-1)
        first_N = (patches.cumsum(0) - patches).repeat_interleave(patches)
        tokens_wide_N = (image_grid_hw[:, 1] // self.merge).repeat_interleave(patches)
        token_N = rows_N // self.merge * tokens_wide_N + columns_N // self.merge
        inside_N = rows_N % self.merge * self.merge + columns_N % self.merge
        order = torch.empty_like(first_N)
        order[first_N + token_N * self.merge**2 + inside_N] = torch.arange(first_N.numel(), device=first_N.device)
        return order

    def _check(self, pixel_values: Tensor, image_grid_hw: Tensor) -> None:
        if (patches := int(image_grid_hw.prod(-1).sum())) != pixel_values.shape[0]:
            raise ValueError(
                f"image_grid_hw describes {patches} patches but pixel_values holds {pixel_values.shape[0]}: "
                "pass both as the image processor returned them"
            )
        if (image_grid_hw % self.merge).any():
            raise ValueError(
                f"image_grid_hw must hold multiples of {self.merge} (a token is {self.merge} x {self.merge} patches), "
                f"got {image_grid_hw.tolist()}"
            )
