import pytest
import torch
from torch import Tensor

from neo.inference.attention_map import attention_to_pictures
from neo.model.attention import eager
from neo.model.masks import AttentionMask
from neo.model.neo import NeoForConditionalGeneration, NeoTextModel
from neo.processing.processor import Encoded

SAID = torch.tensor([5, 6, 7, 8])


@pytest.fixture
def prompt(prompts: list[Encoded]) -> Encoded:
    return next(one for one in prompts if len(one.image_grid_hw) == 2)


def written_out(model: NeoForConditionalGeneration, prompt: Encoded, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every layer's weights, (heads, L, L): what attention gives where the values are the rows of the identity."""
    usual, layers = NeoTextModel.attention_over, []

    def watching(self: NeoTextModel, mask: AttentionMask) -> object:
        attend, visible = usual(self, mask), mask.dense

        def attend_and_keep(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            identity = torch.eye(key.shape[2]).expand(1, key.shape[1], -1, -1)
            layers.append(eager(query, key, identity, visible, self.config.head_dim**-0.5)[0])
            return attend(query, key, value)

        return attend_and_keep

    monkeypatch.setattr(NeoTextModel, "attention_over", watching)
    ids = torch.cat([prompt.input_ids, SAID[:-1]])[None]
    with torch.inference_mode():
        model(input_ids=ids, pixel_values=prompt.pixel_values, image_grid_hw=prompt.image_grid_hw)
    monkeypatch.undo()
    return layers


@pytest.mark.parametrize(("tokens", "layers"), [(1, slice(0, 1)), (3, slice(0, None)), (2, None)])
def test_the_shares_are_those_of_attention_written_out(
    model: NeoForConditionalGeneration,
    prompt: Encoded,
    monkeypatch: pytest.MonkeyPatch,
    tokens: int,
    layers: slice | None,
) -> None:
    grids = attention_to_pictures(model, prompt, SAID, tokens, layers)
    assert [list(grid.shape) for grid in grids] == (prompt.image_grid_hw // 2).tolist()
    chosen = written_out(model, prompt, monkeypatch)[layers or slice(model.config.text_config.pre_buffer_layers, None)]
    weights_L = torch.stack([layer.mean(0)[-tokens:].mean(0) for layer in chosen]).mean(0)
    of_pictures = weights_L[: len(prompt.input_ids)][prompt.input_ids == model.config.image_token_id]
    # 2e-8 measured
    torch.testing.assert_close(torch.cat([grid.flatten() for grid in grids]), of_pictures, atol=1e-6, rtol=1e-5)


def test_without_pictures_there_is_nothing(model: NeoForConditionalGeneration, prompts: list[Encoded]) -> None:
    words = next(one for one in prompts if not len(one.image_grid_hw))
    assert attention_to_pictures(model, words, SAID, 1) == []
