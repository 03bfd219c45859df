import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from neo.inference.sampling import Sampling

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0], [0.0, 3.0, 0.0, 0.0]])


def test_temperature_0_takes_the_likeliest():
    assert [Sampling().choose(row, None) for row in LOGITS] == [0, 1]


def test_probabilities_at_temperature_1_are_the_models():
    torch.testing.assert_close(Sampling(1.0).probabilities(LOGITS[0]), LOGITS[0].softmax(-1))


def test_top_k_keeps_the_k_likeliest():
    kept = Sampling(1.0, top_k=2).probabilities(LOGITS[0])
    assert kept.nonzero().flatten().tolist() == [0, 1]
    torch.testing.assert_close(kept[:2], LOGITS[0, :2].softmax(-1))


@pytest.mark.parametrize(("top_p", "count"), [(1e-6, 1), (0.64, 1), (0.65, 2), (0.88, 2), (0.89, 3), (1.0, 4)])
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, count: int):
    # 0.644, 0.237, 0.087, 0.032: together 0.644, 0.881, 0.968, 1
    assert (Sampling(1.0, top_p=top_p).probabilities(LOGITS[0]) > 0).sum() == count


def test_top_p_applies_to_what_top_k_left():
    assert (Sampling(1.0, top_p=0.7, top_k=2).probabilities(LOGITS[0]) > 0).sum() == 1  # 0.731 of two


@pytest.mark.parametrize(("min_p", "count"), [(0.0, 4), (0.04, 4), (0.06, 3), (0.3, 2), (0.4, 1), (1.0, 1)])
def test_min_p_is_relative_to_the_likeliest(min_p: float, count: int):
    # 1, 0.368, 0.135 and 0.0498 of the likeliest
    assert (Sampling(1.0, min_p=min_p).probabilities(LOGITS[0]) > 0).sum() == count


def test_repetition_penalty_is_that_of_transformers():
    seen, logits = [0, 3, 3], LOGITS[:1]
    expected = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([seen]), logits.clone())[0]
    assert Sampling(repetition_penalty=1.7)._penalised(logits[0], seen).tolist() == expected.tolist()
    assert Sampling(repetition_penalty=2.1).choose(logits[0], None, seen) == 1
    assert torch.equal(logits, LOGITS[:1])


@pytest.mark.parametrize("temperature", [1e-30, 1e-40, 1e-320])
def test_a_temperature_near_0_takes_the_likeliest(temperature: float):
    logits = torch.tensor([1.0, 30.0, -2.0])
    assert Sampling(temperature).probabilities(logits).tolist() == [0.0, 1.0, 0.0]


def test_a_top_p_near_0_takes_the_likeliest():
    assert Sampling(1.0, top_p=1e-50).probabilities(LOGITS[1]).tolist() == [0.0, 1.0, 0.0, 0.0]
    assert Sampling(1.0, top_p=1e-320, top_k=3, min_p=1).probabilities(LOGITS[1]).tolist() == [0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("penalty", "right"), [(1e-300, 1), (1e-40, 1), (1e300, 3)])
def test_any_repetition_penalty_chooses_a_token(penalty: float, right: int, dtype: torch.dtype):
    logits = torch.tensor([float("-inf"), 1e-3, 0.0, 2e-3, -1.0], dtype=dtype)
    for sampling in (Sampling(repetition_penalty=penalty), Sampling(1e-6, repetition_penalty=penalty, seed=0)):
        assert sampling.choose(logits, sampling.generator(), [0, 1, 2, 4]) == right
        only = logits[[0, 4, 0]]  # a form allows but one token
        assert sampling.choose(only, sampling.generator(), [0, 1, 2]) == 1


def test_frequencies_follow_the_probabilities():
    sampling = Sampling(1.0, seed=0)
    generator = sampling.generator()
    for row in LOGITS:
        drawn = torch.tensor([sampling.choose(row, generator) for _ in range(4000)])
        torch.testing.assert_close(drawn.bincount(minlength=4) / 4000, row.softmax(-1), atol=0.03, rtol=0)


def test_a_seed_repeats_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    draws = [Sampling(1.0, seed=5), Sampling(1.0, seed=5), Sampling(1.0, seed=6)]
    flat = torch.zeros(1000)
    first, second, third = (one.choose(flat, one.generator()) for one in draws)
    assert first == second != third
    unseeded = {one.choose(flat, one.generator()) for one in [Sampling(1.0)] * 8}
    assert len(unseeded) > 1
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"top_k": 0}, "top_k=0"),
        ({"seed": -1}, "seed=-1"),
        ({"min_p": 1.5}, "min_p=1.5"),
        ({"repetition_penalty": 0}, "repetition_penalty=0"),
        ({"top_k": True}, "top_k=True must be a whole number"),
        ({"temperature": "hot"}, "temperature='hot' must be a number"),
        ({"temperature": None}, "temperature=None must be a number"),
        ({"top_p": "x"}, "top_p='x' must be a number"),
        ({"top_k": 2.5}, "top_k=2.5 must be a whole number"),
        ({"seed": 1.5}, "seed=1.5 must be a whole number"),
    ],
)
def test_values_outside_their_range(wrong: dict, name: str):
    with pytest.raises(ValueError, match=name):
        Sampling(**wrong)


def test_each_of_several_answers_has_a_seed_of_its_own():
    sampling = Sampling(1.0, seed=3)
    assert sampling.numbered(0) is sampling
    seeds = [Sampling(1.0, seed=seed).numbered(number).seed for seed in range(5) for number in range(5)]
    assert len(set(seeds)) == 25
    assert sampling.numbered(4) == sampling.numbered(4)
    assert Sampling(1.0).numbered(2).seed is None
