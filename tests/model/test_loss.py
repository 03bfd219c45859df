import pytest
import torch

from neo.model.loss import IGNORE, document_loss_weights, next_token_loss


def test_loss_by_hand() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 7), torch.tensor([[1, 2, IGNORE, 3], [IGNORE, IGNORE, 6, 0]])
    weights = torch.tensor([[9.0, 2.0, 9.0, 0.5], [9.0, 9.0, 1.0, 1.5]])
    log_probabilities = logits.log_softmax(-1)
    picked = {(0, 1): 2, (0, 3): 3, (1, 2): 6, (1, 3): 0}  # place of the label to the label
    losses = {place: -log_probabilities[place[0], place[1] - 1, label] for place, label in picked.items()}
    expected = sum(weights[place] * loss for place, loss in losses.items())
    torch.testing.assert_close(next_token_loss(logits, labels, weights), expected / 5.0)
    torch.testing.assert_close(next_token_loss(logits, labels), sum(losses.values()) / 4)
    torch.testing.assert_close(next_token_loss(logits, labels, weights, normalizer=20.0), expected / 20.0)


def test_a_step_does_not_depend_on_how_the_batch_is_split() -> None:
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5)), torch.rand(3, 5)
    total = weights[:, 1:].sum()
    whole = next_token_loss(logits, labels, weights)
    parts = [next_token_loss(logits[i : i + 1], labels[i : i + 1], weights[i : i + 1], total) for i in range(3)]
    torch.testing.assert_close(sum(parts), whole)


def test_nothing_labelled_is_no_loss() -> None:
    logits = torch.randn(1, 3, 7, requires_grad=True)
    loss = next_token_loss(logits, torch.full((1, 3), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.eq(0).all()


def test_loss_is_float32() -> None:
    loss = next_token_loss(torch.randn(1, 3, 7, dtype=torch.bfloat16), torch.ones(1, 3, dtype=torch.long))
    assert loss.dtype == torch.float32


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
