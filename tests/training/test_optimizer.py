import math

import pytest
import torch

from neo.model.config import NeoConfig
from neo.model.neo import NeoForConditionalGeneration
from neo.training.optimizer import (
    Float32Muon,
    OptimizerConfig,
    build_optimizers,
    set_learning_rates,
    share_of_peak,
)
from neo.training.stages import HEAD, LLM_HW, PATCH, choose_trained, parts

COSINE = OptimizerConfig(learning_rate=1.0, min_fraction=0.1, warmup_steps=10)


@pytest.fixture
def model(small_config: NeoConfig) -> NeoForConditionalGeneration:
    return NeoForConditionalGeneration(small_config)


def shares(steps: int, **fields: object) -> list[float]:
    config = OptimizerConfig(**{"min_fraction": 0.1, "warmup_steps": 10} | fields)
    return [share_of_peak(step, steps, config) for step in range(steps)]


def test_cosine() -> None:
    rates = shares(110)
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[60] == pytest.approx(0.55, abs=0.02)


def test_constant() -> None:
    rates = shares(50, schedule="constant")
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert set(rates[10:]) == {1.0}


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.5), ("1-sqrt", 1 - math.sqrt(0.5))])
def test_warm_up_stable_decay(shape: str, middle: float) -> None:
    rates = shares(100, schedule="wsd", decay_fraction=0.2, decay_shape=shape)
    assert set(rates[9:80]) == {1.0}
    assert 1.0 > rates[80] > rates[81]
    assert rates[89] == pytest.approx(0.1 + 0.9 * middle)
    assert rates[-1] == pytest.approx(0.1)


def test_warm_up_in_shares_of_the_run() -> None:
    assert OptimizerConfig(warmup_fraction=0.1).warmup(200) == 20
    assert OptimizerConfig(warmup_steps=7).warmup(200) == 7
    assert OptimizerConfig().warmup(200) == 6  # 3 % unless told


@pytest.mark.parametrize("schedule", ["cosine", "constant", "wsd"])
def test_short_runs(schedule: str) -> None:
    assert shares(1, schedule=schedule, warmup_steps=0, decay_fraction=0.0) == [1.0]
    assert shares(10, schedule=schedule, decay_fraction=0.0)[-1] == 1.0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"warmup_steps": 20, "warmup_fraction": 0.1}, "warmup_steps=20 and warmup_fraction=0.1 say the same"),
        ({"warmup_fraction": 1.5}, "warmup_fraction=1.5 must be between 0 and 1"),
        ({"decay_fraction": -1.0}, "decay_fraction=-1.0 must be at least 0"),
        (
            {"part_learning_rates": {"patch embeding": 1e-3}},
            "'patch embeding' is no part; did you mean patch embedding",
        ),
        ({"part_learning_rates": {"output head": 0.0}}, "'output head' has rate 0.0, which must be above 0"),
    ],
)
def test_mistakes(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        OptimizerConfig(**fields)


def test_runs_too_short_for_their_schedule() -> None:
    with pytest.raises(ValueError, match="warmup_steps=10 is above steps=9"):
        COSINE.warmup(9)
    with pytest.raises(ValueError, match=r"warm-up of 10 steps and a decay of 6 .* do not fit into steps=12"):
        OptimizerConfig(schedule="wsd", warmup_steps=10, decay_fraction=0.5).warmup(12)


def test_every_trained_parameter_is_stepped_once_and_only_matrices_decay(model: NeoForConditionalGeneration) -> None:
    trained = choose_trained(model, "pt")
    (adamw,) = build_optimizers(model, COSINE)
    stepped = [p for group in adamw.param_groups for p in group["params"]]
    assert sorted(map(id, stepped)) == sorted(id(p) for parameters in trained.values() for p in parameters)
    assert adamw.defaults["fused"]
    names = {p: name for name, p in model.named_parameters()}
    for group in adamw.param_groups:
        for parameter in group["params"]:
            vector = "norm" in names[parameter] or names[parameter].endswith("bias")
            assert group["weight_decay"] == (0.0 if vector else 0.01), names[parameter]


def test_learning_rates_of_parts(model: NeoForConditionalGeneration) -> None:
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=4, part_learning_rates={PATCH: 3.0, LLM_HW: 0.5})
    choose_trained(model, "pt")
    optimizers = build_optimizers(model, config)
    assert set_learning_rates(optimizers, 1, 10, config) == 0.5
    rates = {p: group["lr"] for group in optimizers[0].param_groups for p in group["params"]}
    by_part = {part: {rates[p] for p in parameters if p in rates} for part, parameters in parts(model).items()}
    assert {part: found for part, found in by_part.items() if found} == {
        PATCH: {1.5},
        "pre-Buffer layers": {0.5},
        LLM_HW: {0.25},
    }


def test_a_rate_for_what_is_frozen(model: NeoForConditionalGeneration) -> None:
    choose_trained(model, "pt")
    with pytest.raises(ValueError, match="names 'output head', of which nothing is trained here"):
        build_optimizers(model, OptimizerConfig(part_learning_rates={HEAD: 1e-3}))


def test_muon_in_float32_steps_as_torchs_does(
    monkeypatch: pytest.MonkeyPatch, model: NeoForConditionalGeneration
) -> None:
    """Where the CPU multiplies no bf16, and nowhere else."""
    for fast, kind in ((True, torch.optim.Muon), (False, Float32Muon)):
        monkeypatch.setattr("neo.training.optimizer.multiplies_bf16", lambda fast=fast: fast)
        assert type(build_optimizers(model, OptimizerConfig(name="muon"))[1]) is kind
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 40), (40, 24), (32, 32)]
    given = [torch.randn(shape, generator=generator) for shape in shapes]
    stepped = []
    for kind in (torch.optim.Muon, Float32Muon):
        matrices = [torch.nn.Parameter(one.clone()) for one in given]
        unused = torch.nn.Parameter(torch.ones(2, 3))
        optimizer = kind([*matrices, unused], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
        generator.manual_seed(1)
        for _ in range(3):
            for one in matrices:
                one.grad = torch.randn(one.shape, generator=generator)
            optimizer.step()
        assert torch.equal(unused, torch.ones(2, 3))
        stepped.append(
            [torch.cat([one.flatten(), optimizer.state[one]["momentum_buffer"].flatten()]) for one in matrices]
        )
    for of_torch, ours, before in zip(*stepped, given, strict=True):
        moved = (of_torch[: before.numel()] - before.flatten()).norm()
        assert (of_torch - ours).norm() / moved < 0.02  # measured: 0.009


def test_muon_steps_the_matrices_of_layers_and_nothing_else(model: NeoForConditionalGeneration) -> None:
    adamw, muon = build_optimizers(model, OptimizerConfig(name="muon", learning_rate=1e-3, warmup_steps=0))
    names = {p: name for name, p in model.named_parameters()}
    by_muon = {names[p] for group in muon.param_groups for p in group["params"]}
    by_adamw = {names[p] for group in adamw.param_groups for p in group["params"]}
    assert by_muon == {name for p, name in names.items() if ".layers." in name and p.ndim == 2}
    assert by_adamw == set(names.values()) - by_muon
    matrix = model.model.language_model.layers[0].mlp.up_proj.weight
    before = matrix.detach().clone()
    matrix.grad = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(0))
    assert set_learning_rates([adamw, muon], 0, 10, OptimizerConfig(learning_rate=1e-3, warmup_steps=0)) == 1e-3
    muon.step()
    # Scaled as AdamW's first step would be: about 0.2 of the learning rate in the mean square.
    moved = ((matrix - before) / 1e-3).square().mean().sqrt()
    assert 0.1 < moved < 0.3
