import math

import pytest
import torch

from neo.data.loader import Batch
from neo.model.config import NeoConfig
from neo.model.neo import NeoForConditionalGeneration
from neo.model.sizes import Arithmetic
from neo.training import meter as module
from neo.training.distributed import Ranks
from neo.training.learner import Step
from neo.training.meter import Meter
from neo.training.metrics import FIELDS

CPU = torch.device("cpu")
ARITHMETIC = Arithmetic(layers=100, layers_trained=50, head=10, head_trained=0, attention=1)
DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, -1], [-1, -1, -1, -1, -1, -1], [0, 0, 0, 0, 0, 0]])
LOSSES = torch.tensor([[0.0, 1, 3, 0, 5, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 2, 4]])
WEIGHTS = torch.tensor([[0, 0.5, 0.5, 0, 1, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]])
BATCH = Batch(
    {"document_ids": DOCUMENTS, "image_grid_hw": torch.tensor([[4, 4]])},
    names=["a[0]", "b[7]", "a[1]"],
    sources=["a", "b", "a"],
    families=["count", "", "color"],
    tokens=11,
    labelled=5,
)


def step(loss: float = 1.0, norm: float = 2.0) -> Step:
    return Step(loss, norm, 1e-3, LOSSES, WEIGHTS, stop=0, guilty=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets, in its one entry."""
    now = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def learn(meter: Meter, clock: list[float], *steps: Step, batch: Batch = BATCH, seconds: float = 2.0) -> None:
    for one in steps:
        assert meter.wait_for(iter([batch])) is batch
        meter.add_step(batch, one)
        clock[0] += seconds / len(steps)


def test_a_line(clock: list[float]) -> None:
    meter = Meter(ARITHMETIC, 2, Ranks(CPU), peak=1e4)

    def slowly():
        clock[0] += 1.0
        yield BATCH

    assert meter.wait_for(slowly()) is BATCH
    meter.add_step(BATCH, step(1.0))
    clock[0] += 3.0
    meter.add_step(BATCH, step(3.0, 5.0))
    line = meter.line(20, skipped=0)
    # 3 + 2 + 6 tokens see 6 + 3 + 21 earlier ones and themselves, and the 4 of the picture 6 later ones.
    flops = ARITHMETIC.training(11, 36, 5)
    assert flops == 2 * (3 * (100 * 11 + 36 + 10 * 5)) - 2 * (50 * 11 + 10 * 5)
    assert line.pop("memory_gib") > 0
    assert line == pytest.approx(
        {
            "step": 20,
            "loss": 2.0,
            "learning_rate": 1e-3,
            "gradient_norm": 5.0,
            "tokens_per_second": 22 / 4,
            "samples_per_second": 6 / 4,
            "fill": 11 / 18,
            "data_wait": 0.25,
            "mfu": 2 * flops / 4 / 1e4,
            "skipped_steps": 0,
            "seconds": 4.0,
            "loss/a": (2 + 6) / 3,
            "loss/a/color": 3.0,
            "loss/a/count": 2.0,
            "loss/b": 5.0,
        }
    )


def test_every_line_begins_anew_and_skipped_steps_have_no_loss(clock: list[float]) -> None:
    meter = Meter(ARITHMETIC, 2, Ranks(CPU))
    learn(meter, clock, step(), seconds=1.0)
    assert meter.line(1, 0).keys() >= FIELDS.keys()
    clock[0] += 50.0  # a checkpoint
    learn(meter, clock, step(math.nan, math.nan))
    line = meter.line(2, 1)
    assert line["loss"] is None
    assert line["mfu"] is None
    assert line["gradient_norm"] == 2.0
    assert line["skipped_steps"] == 1
    assert line["tokens_per_second"] == 11 / 2
    assert not any(name.startswith("loss/") for name in line)


def test_ranks_are_put_together(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(Ranks, "gather", lambda self, value: told.append(value) or list(told))
    one, two = (Meter(ARITHMETIC, 2, Ranks(CPU, rank, 2), peak=1e4) for rank in (0, 1))
    other = Batch(BATCH.inputs, ["c[0]", "b[7]", "a[1]"], ["c", "b", "a"], ["", "", ""], 11, 5)
    learn(one, clock, step(), seconds=0.0)
    learn(two, clock, step(), batch=other)
    alone, together = one.line(1, 0), two.line(1, 0)
    assert together["tokens_per_second"] == 11
    assert together["mfu"] == alone["mfu"] * 2 / 1  # of two devices, where the other rank was not heard yet
    assert together["loss/a"] == pytest.approx((2 + 6 + 6) / 5)
    assert together["loss/b"] == 5.0
    assert together["loss/c"] == 2.0
    assert together["fill"] == alone["fill"]


def test_the_loss_is_the_weighted_mean_of_those_of_sources(small_config: NeoConfig) -> None:
    torch.manual_seed(0)
    model = NeoForConditionalGeneration(small_config).train()
    documents = torch.tensor([[0] * 6 + [1] * 6, [0] * 12])
    ids, weights = torch.randint(1, 500, (2, 12)), torch.rand(2, 12)
    labels = ids.clone()
    labels[:, 0] = labels[0, 6] = -100
    weights *= labels != -100
    output = model(input_ids=ids, document_ids=documents, labels=labels, loss_weights=weights)
    sources = ["a", "b", "b"]
    batch = Batch({"document_ids": documents}, sources, sources, ["", "", ""], 24, 21)
    meter = Meter(Arithmetic.of(model), 2, Ranks(CPU))
    learn(meter, [0.0], Step(output.loss.item(), 1.0, 1.0, output.token_losses, weights, 0, False), batch=batch)
    line = meter.line(1, 0)
    a = weights[0, :6].sum() / weights.sum()
    assert line["loss"] == pytest.approx((a * line["loss/a"] + (1 - a) * line["loss/b"]).item(), rel=1e-5)
