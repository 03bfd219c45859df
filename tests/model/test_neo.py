"""The whole model: batches, caches, packed documents, gradients and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from neo.model.config import NeoConfig
from neo.model.neo import NeoForConditionalGeneration, NeoModel

Compose = Callable[..., dict[str, Tensor]]
ROWS: list[list[Any]] = [[9], [3, (4, 6), 5], [2, (2, 4), (4, 4), 4], [(8, 2), 3]]
"""Text only, one picture, two adjacent pictures, picture first."""


def single(inputs: dict[str, Tensor], row: int, pictures: slice) -> dict[str, Tensor]:
    """One row of a left-padded batch by itself, without padding."""
    real = inputs["attention_mask"][row].bool()
    grids = inputs["image_grid_hw"]
    alone = {"input_ids": inputs["input_ids"][row : row + 1, real]}
    if pictures.stop > pictures.start:
        patches = inputs["pixel_values"].split(grids.prod(-1).tolist())
        alone |= {"image_grid_hw": grids[pictures], "pixel_values": torch.cat(patches[pictures])}
    return alone


PICTURES = [slice(0, 0), slice(0, 1), slice(1, 3), slice(3, 4)]


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
@torch.no_grad()
def test_a_batch_gives_what_each_row_gives_alone(
    tiny: NeoForConditionalGeneration, compose: Compose, implementation: str
) -> None:
    tiny.set_attn_implementation(implementation)
    inputs = compose(*ROWS)
    together = tiny(**inputs).logits
    for row, pictures in enumerate(PICTURES):
        alone = tiny(**single(inputs, row, pictures)).logits[0]
        # measured: 8.0e-6
        torch.testing.assert_close(together[row, -len(alone) :], alone, atol=1e-4, rtol=0)


@torch.no_grad()
def test_right_padding_gives_the_same(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose(*ROWS)
    expected = tiny(**inputs).logits
    shifts = (inputs["attention_mask"] == 0).sum(-1).tolist()
    right = dict(inputs)
    for name in ("input_ids", "attention_mask"):
        right[name] = torch.stack([row.roll(-by) for row, by in zip(inputs[name], shifts, strict=True)])
    assert right["attention_mask"][:, 0].all()
    logits = tiny(**right).logits
    for row, shift in enumerate(shifts):
        length = logits.shape[1] - shift
        torch.testing.assert_close(logits[row, :length], expected[row, shift:], atol=1e-4, rtol=0)


@torch.no_grad()
def test_packed_documents_do_not_see_each_other(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    parts = [compose(row, seed=seed) for seed, row in enumerate(ROWS)]
    lengths = torch.tensor([part["input_ids"].shape[1] for part in parts])
    packed = {
        "input_ids": torch.cat([part["input_ids"] for part in parts], dim=1),
        "document_ids": torch.arange(len(parts)).repeat_interleave(lengths)[None],
        "pixel_values": torch.cat([part["pixel_values"] for part in parts if "pixel_values" in part]),
        "image_grid_hw": torch.cat([part["image_grid_hw"] for part in parts if "pixel_values" in part]),
    }
    logits = tiny(**packed).logits[0].split(lengths.tolist())
    for part, ours in zip(parts, logits, strict=True):
        torch.testing.assert_close(ours, tiny(**part).logits[0], atol=1e-4, rtol=0)


@torch.no_grad()
def test_cached_decoding_equals_the_full_forward(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([3, (4, 6), 12])
    expected = tiny(**inputs, use_cache=False).logits
    positions = tiny.get_positions(inputs["input_ids"], inputs["image_grid_hw"])
    ids, cut = inputs["input_ids"], 14
    first = {name: inputs[name] for name in ("pixel_values", "image_grid_hw")}
    output = tiny(input_ids=ids[:, :cut], **first)
    logits = [output.logits]
    for place in range(cut, ids.shape[1]):
        output = tiny(
            input_ids=ids[:, place : place + 1],
            position_ids=positions[..., place : place + 1],
            past_key_values=output.past_key_values,
        )
        logits.append(output.logits)
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, atol=1e-4, rtol=0)  # measured: 6.8e-6


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
@torch.no_grad()
def test_a_cache_takes_a_chunk_with_pictures(
    tiny: NeoForConditionalGeneration, compose: Compose, implementation: str
) -> None:
    tiny.set_attn_implementation(implementation)
    inputs = compose([5, (4, 4), 7, (4, 6), (2, 2), 4])
    ids, pixels, grid = inputs["input_ids"], inputs["pixel_values"], inputs["image_grid_hw"]
    expected = tiny(**inputs, use_cache=False).logits
    positions = tiny.get_positions(ids, grid)
    cut = 5 + 6 + 3  # in the words between the pictures
    first = tiny(input_ids=ids[:, :cut], pixel_values=pixels[:16], image_grid_hw=grid[:1])
    second = tiny(
        input_ids=ids[:, cut:],
        pixel_values=pixels[16:],
        image_grid_hw=grid[1:],
        position_ids=positions[..., cut:],
        past_key_values=first.past_key_values,
    )
    logits = torch.cat([first.logits, second.logits], dim=1)
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)  # measured: 1.0e-5


@torch.no_grad()
def test_a_cache_with_left_padding_takes_a_chunk_with_pictures(
    tiny: NeoForConditionalGeneration, compose: Compose
) -> None:
    inputs = compose([6], [2, (4, 4), 6])
    more = compose([3, (2, 4), 2], [(2, 2), 6], seed=1)
    assert more["attention_mask"].all()
    whole = {
        "input_ids": torch.cat([inputs["input_ids"], more["input_ids"]], dim=1),
        "attention_mask": torch.cat([inputs["attention_mask"], more["attention_mask"]], dim=1),
        # Row by row: the second picture of the batch stands in the first row's second turn.
        "image_grid_hw": torch.cat([more["image_grid_hw"][:1], inputs["image_grid_hw"], more["image_grid_hw"][1:]]),
        "pixel_values": torch.cat([more["pixel_values"][:8], inputs["pixel_values"], more["pixel_values"][8:]]),
    }
    expected = tiny(**whole, use_cache=False).logits
    past = inputs["input_ids"].shape[1]
    positions = tiny.get_positions(whole["input_ids"], whole["image_grid_hw"], whole["attention_mask"])
    first = tiny(**inputs)
    second = tiny(
        **{**more, "attention_mask": whole["attention_mask"]},
        position_ids=positions[..., past:],
        past_key_values=first.past_key_values,
    )
    torch.testing.assert_close(second.logits, expected[:, past:], atol=1e-4, rtol=0)


@torch.no_grad()
def test_continuing_a_cache_without_positions_is_refused(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    output = tiny(**compose([5]))
    with pytest.raises(ValueError, match="position_ids are needed when continuing a cache"):
        tiny(input_ids=torch.tensor([[3]]), past_key_values=output.past_key_values)


@torch.no_grad()
def test_grids_may_have_their_other_name(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([3, (4, 6), (2, 4), 5])
    expected = tiny(**inputs).logits
    grid = inputs.pop("image_grid_hw")
    thw = torch.cat([torch.ones(len(grid), 1, dtype=torch.long), grid], dim=1)
    assert tiny(**inputs, image_grid_thw=thw).logits.equal(expected)


@torch.no_grad()
def test_empty_pictures_are_no_pictures(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([7])
    none = {"pixel_values": torch.zeros(0, 768), "image_grid_hw": torch.zeros(0, 2, dtype=torch.long)}
    assert tiny(**inputs, **none).logits.equal(tiny(**inputs).logits)


@torch.no_grad()
def test_inputs_embeds_replace_the_words(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([3, (4, 6), 5])
    embeds = tiny.get_input_embeddings()(inputs["input_ids"])
    assert tiny(**inputs, inputs_embeds=embeds).logits.equal(tiny(**inputs).logits)
    assert not tiny(**inputs, inputs_embeds=embeds * 2).logits.equal(tiny(**inputs).logits)
    with pytest.raises(ValueError, match="input_ids are needed"):
        tiny(inputs_embeds=embeds)


@torch.no_grad()
def test_logits_to_keep(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([3, (4, 6), 5])
    torch.testing.assert_close(tiny(**inputs, logits_to_keep=2).logits, tiny(**inputs).logits[:, -2:])


@torch.no_grad()
def test_headless_model_gives_the_hidden_states(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([3, (4, 6), 5])
    assert isinstance(tiny.model, NeoModel)
    hidden = tiny.model(**inputs).last_hidden_state
    torch.testing.assert_close(tiny.lm_head(hidden), tiny(**inputs).logits)


@torch.no_grad()
def test_all_hidden_states_can_be_had(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([3, (4, 6), 5])
    states = tiny(**inputs, output_hidden_states=True).hidden_states
    assert len(states) == 5
    assert states[-1].equal(tiny.model(**inputs).last_hidden_state)
    assert tiny(**inputs).hidden_states is None


def gradients(model: NeoForConditionalGeneration, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_gradient_checkpointing_gives_exact_gradients(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    tiny.train()
    inputs = compose(*ROWS)
    expected = gradients(tiny, inputs)
    tiny.activation_checkpointing_enable()
    calls = []
    tiny.model.language_model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    ours = gradients(tiny, inputs)
    assert len(calls) == 2  # once forward, once again for the backward pass
    assert len(ours) == len(list(tiny.parameters()))
    assert all(ours[name].equal(value) for name, value in expected.items())


def test_padding_has_no_influence_and_no_gradient_of_nan(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    tiny.train()
    for implementation in ("eager", "sdpa"):
        tiny.set_attn_implementation(implementation)
        inputs = compose(*ROWS)
        expected = gradients(tiny, inputs | {"input_ids": inputs["input_ids"]})
        assert all(value.isfinite().all() for value in expected.values())


def test_no_cache_is_kept_while_training(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    assert tiny.train()(**compose([4])).past_key_values is None
    assert tiny.eval()(**compose([4])).past_key_values is not None


@torch.no_grad()
def test_counts_that_differ_are_both_named(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([3, (4, 6), 5])
    with pytest.raises(ValueError, match="holds 6 image tokens but the pictures give 4 "):
        tiny(**inputs | {"image_grid_hw": torch.tensor([[4, 4]]), "pixel_values": torch.zeros(16, 768)})
    with pytest.raises(ValueError, match="holds 6 image tokens but the pictures give 0 "):
        tiny(input_ids=inputs["input_ids"])
    with pytest.raises(ValueError, match="holds 0 image tokens but the pictures give 6 "):
        tiny(**inputs | {"input_ids": torch.ones(1, 8, dtype=torch.long)})
    with pytest.raises(ValueError, match="describes 24 patches but pixel_values holds 20"):
        tiny(**inputs | {"pixel_values": inputs["pixel_values"][:20]})


def test_pictures_and_grids_go_together(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([3, (4, 6), 5])
    grid = inputs.pop("image_grid_hw")
    with pytest.raises(ValueError, match="image tokens"):
        tiny(**inputs)
    with pytest.raises(ValueError, match="image tokens"):
        tiny(input_ids=inputs["input_ids"], image_grid_hw=grid)


def test_unknown_attention(tiny: NeoForConditionalGeneration) -> None:
    with pytest.raises(ValueError, match="'flash_attention_2': choose one of eager, sdpa, flex_attention"):
        tiny.set_attn_implementation("flash_attention_2")


def test_fresh_weights_follow_the_configuration(small_config: NeoConfig) -> None:
    torch.manual_seed(0)
    model = NeoForConditionalGeneration(small_config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert parameter.eq(0).all(), name
        elif parameter.dim() == 1:
            assert parameter.eq(1).all(), name
        elif not name.endswith("vision_model.patch_embedding.weight"):  # smooth patterns, see test_patch_embedding
            assert parameter.std().item() == pytest.approx(0.02, rel=0.15), name


def test_attention_implementation_reaches_every_layer(
    tiny: NeoForConditionalGeneration, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neo.model import neo

    seen = []
    monkeypatch.setattr(
        neo, "attention_over", lambda mask, scale, backend: seen.append((backend, scale)) or neo.padded_mean
    )
    monkeypatch.setattr(neo, "padded_mean", lambda q, k, v: q[..., : v.shape[-1]], raising=False)
    for backend in ("eager", "sdpa", "flex_attention"):
        tiny.set_attn_implementation(backend)
        tiny(**compose([3]))
    # Scaled by the width of T alone, not of the joined query.
    assert seen == [(backend, 32**-0.5) for backend in ("eager", "sdpa", "flex_attention")]


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@torch.no_grad()
def test_half_precision_is_close(
    tiny: NeoForConditionalGeneration, compose: Compose, implementation: str, dtype: torch.dtype
) -> None:
    inputs = compose(*ROWS)
    real = inputs["attention_mask"].bool()
    expected = tiny(**inputs).logits[real]
    tiny.to(dtype).set_attn_implementation(implementation)
    logits = tiny(**inputs).logits[real]
    assert logits.dtype == dtype
    errors = (logits.float() - expected).abs()
    assert errors.max() < (0.5 if dtype == torch.bfloat16 else 0.08)  # measured: 0.18 and 0.022, of 5.7


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_training_under_autocast(tiny: NeoForConditionalGeneration, compose: Compose, implementation: str) -> None:
    tiny.train().set_attn_implementation(implementation)
    inputs = compose(*ROWS)
    expected = tiny(**inputs, labels=inputs["input_ids"]).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = tiny(**inputs, labels=inputs["input_ids"]).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=0.02)  # measured: 0.002
    assert all(parameter.grad.isfinite().all() for parameter in tiny.parameters())
