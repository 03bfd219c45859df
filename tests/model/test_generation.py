"""transformers' generate(): batches, beams, samples, turns on one cache, all with pictures."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.streamers import BaseStreamer

from neo.model.neo import NeoForConditionalGeneration

Compose = Callable[..., dict[str, Tensor]]
ROWS: list[list[Any]] = [[9], [3, (4, 6), 5], [2, (2, 4), (4, 4), 4], [(8, 2), 3]]
GREEDY = {"max_new_tokens": 8, "do_sample": False, "suppress_tokens": [509]}
"""Random weights like to write <IMG_CONTEXT>, which in a prompt would ask for a picture."""


def new_ids(model: NeoForConditionalGeneration, inputs: dict[str, Any], **options: Any) -> Tensor:
    return model.generate(**inputs, **{**GREEDY, **options})[:, inputs["input_ids"].shape[1] :]


def by_full_forwards(model: NeoForConditionalGeneration, inputs: dict[str, Tensor], count: int) -> list[int]:
    """Greedy ids with everything computed anew for every token: no cache, no generate()."""
    inputs, found = dict(inputs), []
    inputs.pop("attention_mask", None)
    with torch.no_grad():
        for _ in range(count):
            logits = model(**inputs, use_cache=False).logits[:, -1:]
            logits[..., 509] = -torch.inf
            token = logits.argmax(-1)
            inputs["input_ids"] = torch.cat([inputs["input_ids"], token], dim=1)
            found.append(token.item())
    return found


def single_rows(inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The rows of a batch of `ROWS`, each by itself and without padding."""
    patches = inputs["pixel_values"].split(inputs["image_grid_hw"].prod(-1).tolist())
    rows = []
    for row, pictures in enumerate([[], [0], [1, 2], [3]]):
        alone = {"input_ids": inputs["input_ids"][row : row + 1, inputs["attention_mask"][row].bool()]}
        if pictures:
            alone["pixel_values"] = torch.cat([patches[picture] for picture in pictures])
            alone["image_grid_hw"] = inputs["image_grid_hw"][pictures]
        rows.append(alone)
    return rows


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
def test_a_batch_generates_what_each_row_generates_alone(
    tiny: NeoForConditionalGeneration, compose: Compose, implementation: str
) -> None:
    tiny.set_attn_implementation(implementation)
    together = compose(*ROWS)
    batch = new_ids(tiny, together, max_new_tokens=3)
    for row, alone in enumerate(single_rows(together)):
        assert new_ids(tiny, alone, max_new_tokens=3)[0].equal(batch[row])
        if implementation == "sdpa":
            assert batch[row].tolist() == by_full_forwards(tiny, alone, 3)


def test_generate_without_cache(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose(*ROWS)
    assert new_ids(tiny, inputs, use_cache=False, max_new_tokens=4).equal(new_ids(tiny, inputs, max_new_tokens=4))


def test_grids_may_have_their_other_name(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose(*ROWS)
    expected = [new_ids(tiny, inputs), new_ids(tiny, inputs, num_beams=3)]
    grid = inputs.pop("image_grid_hw")
    inputs["image_grid_thw"] = torch.cat([torch.ones(len(grid), 1, dtype=torch.long), grid], dim=1)
    assert new_ids(tiny, inputs).equal(expected[0])
    assert new_ids(tiny, inputs, num_beams=3).equal(expected[1])


def test_a_batch_without_pictures_may_hold_empty_pixels(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([3, 4])
    empty = {"pixel_values": torch.empty(0, 768), "image_grid_hw": torch.empty(0, 2, dtype=torch.long)}
    for beams in (1, 3):
        assert new_ids(tiny, inputs | empty, num_beams=beams).equal(new_ids(tiny, inputs, num_beams=beams))


class Interleaved(BaseStreamer):
    """Runs another generation on the same model after every token of the first."""

    def __init__(self, other: Callable[[], None]) -> None:
        self.other = other

    def put(self, value: Tensor) -> None:
        self.other()

    def end(self) -> None:
        pass


def test_interleaved_generations_do_not_disturb_each_other(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    first, second = compose([3, (4, 6), 5]), compose([(2, 2), 2, (6, 4), 9], seed=1)
    expected = new_ids(tiny, first), new_ids(tiny, second)
    during = []
    ours = new_ids(tiny, first, streamer=Interleaved(lambda: during.append(new_ids(tiny, second))))
    assert ours.equal(expected[0])
    assert len(during) == 9  # the prompt and eight tokens
    assert all(ids.equal(expected[1]) for ids in during)


def test_one_beam_kept_of_many_equals_a_search_row_by_row(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    beams = {"num_beams": 4, "num_return_sequences": 2}
    inputs = compose(*ROWS)
    batch = new_ids(tiny, inputs, **beams)
    for row, alone in enumerate(single_rows(inputs)):
        assert new_ids(tiny, alone, **beams).equal(batch[2 * row : 2 * row + 2])


def test_samples_of_one_prompt_differ_and_see_its_pictures(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([3, (4, 6), 5], [2, (2, 4), (4, 4), 4])
    torch.manual_seed(0)
    samples = new_ids(tiny, inputs, do_sample=True, num_return_sequences=3)
    assert samples.shape == (6, 8)
    assert len({tuple(row) for row in samples.tolist()}) == 6
    # Sampling from the best token alone is greedy search: every copy saw its own row's pictures.
    greedy = new_ids(tiny, inputs)
    best = new_ids(tiny, inputs, do_sample=True, top_k=1, num_return_sequences=3)
    assert best.equal(greedy.repeat_interleave(3, dim=0))


@pytest.mark.parametrize("rows", [1, 2])
def test_turns_on_one_cache_equal_a_fresh_start(tiny: NeoForConditionalGeneration, compose: Compose, rows: int) -> None:
    """Each turn passes the whole conversation and the cache; only what is new is computed."""
    turns = [[[3, (4, 6), 5], [7, (2, 2), 5]], [[4], [4]], [[2, (4, 4), 3], [2, (6, 2), (2, 2), 1]]]
    turns = [turn[:rows] for turn in turns]
    conversation: dict[str, Tensor] = {}
    pictures: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(rows)]
    cache = None
    for number, parts in enumerate(turns):
        turn = compose(*parts, seed=number)
        for name in ("input_ids", "attention_mask"):
            conversation[name] = torch.cat([conversation.get(name, turn[name][:, :0]), turn[name]], dim=1)
        if "pixel_values" in turn:
            new = list(
                zip(
                    turn["pixel_values"].split(turn["image_grid_hw"].prod(-1).tolist()),
                    turn["image_grid_hw"],
                    strict=True,
                )
            )
            for row, part in enumerate(parts):
                count = sum(isinstance(p, tuple) for p in part)
                pictures[row] += new[:count]
                del new[:count]
            conversation["pixel_values"] = torch.cat([patches for row in pictures for patches, _ in row])
            conversation["image_grid_hw"] = torch.stack([grid for row in pictures for _, grid in row])
        fresh = new_ids(tiny, conversation)
        output = tiny.generate(**conversation, past_key_values=cache, return_dict_in_generate=True, **GREEDY)
        length = conversation["input_ids"].shape[1]
        assert output.sequences[:, length:].equal(fresh)
        cache = output.past_key_values
        assert cache.get_seq_length() == length + 7  # the last new token was never fed
        conversation["input_ids"] = output.sequences
        conversation["attention_mask"] = torch.cat(
            [conversation["attention_mask"], torch.ones(rows, 8, dtype=torch.long)], dim=1
        )


def test_a_picture_is_embedded_once(
    tiny: NeoForConditionalGeneration, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    tiny.model.vision_model.register_forward_pre_hook(lambda *_: calls.append(1))
    new_ids(tiny, compose([3, (4, 6), 5]))
    assert len(calls) == 1


def test_generation_stops_at_the_end_token(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([3, (4, 6), 5])
    free = new_ids(tiny, inputs)[0].tolist()
    stopped = new_ids(tiny, inputs, eos_token_id=free[2], pad_token_id=0)[0].tolist()
    assert stopped == free[: free.index(free[2]) + 1]


def test_scores_and_hidden_states_of_generated_tokens(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    output = tiny.generate(
        **compose([3, (4, 6), 5]),
        **GREEDY,
        return_dict_in_generate=True,
        output_scores=True,
        output_hidden_states=True,
    )
    assert len(output.scores) == len(output.hidden_states) == 8
    assert [score.argmax(-1).item() for score in output.scores] == output.sequences[0, -8:].tolist()


def test_static_caches_are_refused(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    with pytest.raises(ValueError, match="cache_implementation='static' is not supported"):
        new_ids(tiny, compose([5]), cache_implementation="static")


def test_generation_config_is_respected(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([3, (4, 6), 5])
    expected = new_ids(tiny, inputs)
    config = GenerationConfig(**{**GREEDY, "max_new_tokens": 3})
    assert tiny.generate(**inputs, generation_config=config)[:, -3:].equal(expected[:, :3])


def test_counts_that_differ_are_named_before_generating(tiny: NeoForConditionalGeneration, compose: Compose) -> None:
    inputs = compose([3, (4, 6), 5])
    inputs["image_grid_hw"] = torch.tensor([[4, 4]])
    with pytest.raises(ValueError, match="holds 6 image tokens but the pictures give 4 "):
        new_ids(tiny, inputs)
