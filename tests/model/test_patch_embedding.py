import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from neo.model.config import NeoVisionConfig, preset
from neo.model.neo import NeoForConditionalGeneration
from neo.model.patch_embedding import CONTRAST, FILTER_STD, PatchEmbedding
from neo.model.rope import rotate_patches


@pytest.fixture
def embedding() -> PatchEmbedding:
    torch.manual_seed(0)
    return PatchEmbedding(NeoVisionConfig(hidden_size=24, llm_hidden_size=20))


def patches_of(picture: Tensor) -> Tensor:
    """(3, H, W) to (patches, 768), row-major, each flattened channel-first."""
    return picture.unfold(1, 16, 16).unfold(2, 16, 16).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)


def with_plain_convolutions(embedding: PatchEmbedding, picture: Tensor) -> Tensor:
    """One picture through nn.Conv2d, the rotation between them on the grid."""
    channels = F.gelu(embedding.patch_embedding(picture[None]))[0]
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in channels.shape[1:]), indexing="ij")
    turned = rotate_patches(channels.flatten(1).T, rows.flatten(), columns.flatten(), 1e4)
    return embedding.dense_embedding(turned.T.reshape(channels.shape)[None])[0].flatten(1).T


@pytest.mark.parametrize("sizes", [[(32, 32)], [(64, 96)], [(224, 32)], [(64, 64), (32, 96), (96, 32)]], ids=str)
@torch.no_grad()
def test_equals_plain_convolutions_picture_by_picture(embedding: PatchEmbedding, sizes: list[tuple[int, int]]) -> None:
    pictures = [torch.randn(3, *size) for size in sizes]
    grids = torch.tensor(sizes) // 16
    ours = embedding(torch.cat([patches_of(picture) for picture in pictures]), grids)
    expected = torch.cat([with_plain_convolutions(embedding, picture) for picture in pictures])
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)  # measured: 3.6e-7


@torch.no_grad()
def test_input_takes_the_dtype_of_the_weights(embedding: PatchEmbedding) -> None:
    embedding.bfloat16()
    assert embedding(torch.randn(4, 768), torch.tensor([[2, 2]])).dtype == torch.bfloat16


def test_no_picture_gives_no_token(embedding: PatchEmbedding) -> None:
    assert embedding(torch.zeros(0, 768), torch.zeros(0, 2, dtype=torch.long)).shape == (0, 20)


def test_patches_and_grids_that_disagree(embedding: PatchEmbedding) -> None:
    with pytest.raises(ValueError, match="describes 24 patches but pixel_values holds 20"):
        embedding(torch.zeros(20, 768), torch.tensor([[4, 6]]))


def test_odd_grids(embedding: PatchEmbedding) -> None:
    with pytest.raises(ValueError, match=r"multiples of 2 .*\[\[3, 4\]\]"):
        embedding(torch.zeros(12, 768), torch.tensor([[3, 4]]))


def test_fresh_filters_are_smooth_patterns() -> None:
    """Three in four have no mean and are stronger; none is white noise."""
    torch.manual_seed(0)
    config = preset("demo")
    weight = NeoForConditionalGeneration(config).model.vision_model.patch_embedding.weight.detach()
    strong, weak = weight[: 3 * len(weight) // 4], weight[3 * len(weight) // 4 :]
    assert strong.mean((2, 3)).abs().max() < 1e-6
    assert torch.allclose(strong.flatten(1).square().mean(1).sqrt(), torch.tensor(FILTER_STD * CONTRAST))
    assert torch.allclose(weak.flatten(1).square().mean(1).sqrt(), torch.tensor(FILTER_STD))
    steps = (weight[..., 1:] - weight[..., :-1]).square().mean() / weight.square().mean()
    assert steps < 0.25  # 2 for white noise
