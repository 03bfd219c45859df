from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neo.model import neo
from neo.model.config import IGNORE, NeoConfig
from neo.model.loss import document_loss_weights, next_token_loss
from neo.model.neo import NeoForConditionalGeneration


def loss_of(logits: Tensor, labels: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return next_token_loss(logits, labels, nn.Identity(), *args, **kwargs)[0]


def test_loss_by_hand() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 7), torch.tensor([[1, 2, IGNORE, 3], [IGNORE, IGNORE, 6, 0]])
    weights = torch.tensor([[9.0, 2.0, 9.0, 0.5], [9.0, 9.0, 1.0, 1.5]])
    log_probabilities = logits.log_softmax(-1)
    picked = {(0, 1): 2, (0, 3): 3, (1, 2): 6, (1, 3): 0}  # place of the label to the label
    losses = {place: -log_probabilities[place[0], place[1] - 1, label] for place, label in picked.items()}
    expected = sum(weights[place] * loss for place, loss in losses.items())
    torch.testing.assert_close(loss_of(logits, labels, weights), expected / 5.0)
    torch.testing.assert_close(loss_of(logits, labels), sum(losses.values()) / 4)
    torch.testing.assert_close(loss_of(logits, labels, weights, normalizer=20.0), expected / 20.0)
    single = torch.zeros(2, 4)
    for place, loss in losses.items():
        single[place] = loss
    torch.testing.assert_close(next_token_loss(logits, labels, nn.Identity(), weights)[1], single)


def test_a_step_does_not_depend_on_how_the_batch_is_split() -> None:
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5)), torch.rand(3, 5)
    total = weights[:, 1:].sum()
    whole = loss_of(logits, labels, weights)
    parts = [loss_of(logits[i : i + 1], labels[i : i + 1], weights[i : i + 1], total) for i in range(3)]
    torch.testing.assert_close(sum(parts), whole)


def test_nothing_labelled_is_no_loss() -> None:
    hidden, head = torch.randn(1, 3, 4, requires_grad=True), nn.Linear(4, 7)
    loss, token_losses = next_token_loss(hidden, torch.full((1, 3), IGNORE), head)
    loss.backward()
    assert loss.item() == 0
    assert token_losses.eq(0).all()
    assert hidden.grad.eq(0).all()
    assert head.weight.grad.eq(0).all()  # there, if only zero: ranks must agree on which gradients exist


def test_loss_is_float32() -> None:
    loss = loss_of(torch.randn(1, 3, 7, dtype=torch.bfloat16), torch.ones(1, 3, dtype=torch.long))
    assert loss.dtype == torch.float32


class Counted(nn.Linear):
    """A head that notes how many places it was asked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.places: list[int] = []

    def forward(self, hidden: Tensor) -> Tensor:
        self.places.append(len(hidden))
        return super().forward(hidden)


@pytest.mark.parametrize("chunk", [1, 7, 16, 100])
def test_chunks_give_the_plain_loss_and_gradients(chunk: int) -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(2, 20, 8, requires_grad=True), Counted(8, 50, bias=False)
    labels, weights = torch.randint(0, 50, (2, 20)), torch.rand(2, 20)
    labels[torch.rand(2, 20) < 0.3] = IGNORE
    picked = F.cross_entropy(head(hidden[:, :-1]).flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    chosen = labels[:, 1:] != IGNORE
    plain = (picked.view(2, 19) * weights[:, 1:]).sum() / (weights[:, 1:] * chosen).sum()
    expected = torch.autograd.grad(plain, [hidden, head.weight])
    head.places.clear()
    loss, _ = next_token_loss(hidden, labels, head, weights, chunk=chunk)
    gradients = torch.autograd.grad(loss, [hidden, head.weight])
    assert loss.item() == pytest.approx(plain.item(), abs=1e-6)
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-5)
    assert sum(head.places) == chosen.sum()  # nothing is computed where there is no label, nor anything twice
    assert max(head.places) <= chunk


def test_a_frozen_head_still_passes_gradients_on() -> None:
    torch.manual_seed(0)
    hidden, head, labels = torch.randn(1, 20, 8, requires_grad=True), nn.Linear(8, 50), torch.randint(0, 50, (1, 20))
    (expected,) = torch.autograd.grad(next_token_loss(hidden, labels, head)[0], hidden)
    head.requires_grad_(False)
    (ours,) = torch.autograd.grad(next_token_loss(hidden, labels, head, chunk=3)[0], hidden)
    torch.testing.assert_close(ours, expected, atol=1e-7, rtol=1e-5)


def test_without_gradients_too_logits_come_in_chunks() -> None:
    torch.manual_seed(0)
    hidden, head, labels = torch.randn(1, 20, 8), Counted(8, 50), torch.randint(0, 50, (1, 20))
    expected = next_token_loss(hidden, labels, head)[0]
    head.places.clear()
    with torch.no_grad():
        ours = next_token_loss(hidden, labels, head, chunk=6)[0]
    torch.testing.assert_close(ours, expected)
    assert head.places == [6, 6, 6, 1]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_model_in_chunks(
    small_config: NeoConfig, compose: Callable[..., dict[str, Tensor]], tied: bool, autocast: bool, monkeypatch: Any
) -> None:
    small_config.tie_word_embeddings = small_config.text_config.tie_word_embeddings = tied
    torch.manual_seed(0)
    model = NeoForConditionalGeneration(small_config).train()
    inputs = compose([9, (4, 6), 30], [20])
    labels = inputs["input_ids"].where(inputs["attention_mask"] > 0, IGNORE)

    def learn(chunk_logits: int) -> tuple[float, dict[str, Tensor]]:
        monkeypatch.setattr(neo, "CHUNK_LOGITS", chunk_logits)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = model(**inputs, labels=labels)
        assert output.logits is None
        output.loss.backward()
        return output.loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}

    (whole, expected), (chunked, ours) = learn(2**27), learn(10 * small_config.text_config.vocab_size)
    assert chunked == pytest.approx(whole, abs=1e-6)
    for name, value in expected.items():
        error = (ours[name] - value).norm() / value.norm().clamp_min(1e-12)
        # Measured: 1e-6, and 1.0e-2 in bfloat16, whose own distance from float32 is up to 4e-2 here.
        assert error < (3e-2 if autocast else 1e-5), name


def test_logits_come_when_asked_for_or_when_nothing_is_learned(
    tiny: NeoForConditionalGeneration, compose: Callable[..., dict[str, Tensor]]
) -> None:
    inputs = compose([12])
    learning = {**inputs, "labels": inputs["input_ids"]}
    expected = tiny(**inputs).logits
    assert tiny(**learning).logits.equal(expected)
    assert tiny(**learning, return_logits=False).logits is None
    tiny.train()
    assert tiny(**inputs).logits.equal(expected)
    assert tiny(**learning).logits is None
    assert tiny(**learning, return_logits=True).logits.equal(expected)


@pytest.mark.parametrize(("reduction", "power"), [("token", 0), ("square", -0.5), ("sample", -1)])
def test_weights_of_documents(reduction: str, power: float) -> None:
    labels = torch.tensor([[IGNORE, 1, 2, IGNORE, 3, 4], [5, IGNORE, 6, 7, 8, IGNORE]])
    documents = torch.tensor([[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, -1]])
    weights = document_loss_weights(labels, documents, reduction)
    two, four = 2**power, 4**power
    expected = [[0, two, two, 0, two, two], [four, 0, four, four, four, 0]]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float32))


def test_unknown_reduction() -> None:
    with pytest.raises(ValueError, match="unknown loss reduction 'mean': choose one of token, square, sample"):
        document_loss_weights(torch.ones(1, 2), torch.zeros(1, 2), "mean")
