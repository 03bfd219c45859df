"""The one loss: next-token cross-entropy, weighted per token (ARCHITECTURE: training, three stages)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from neo.model.positions import PADDING

IGNORE = -100
"""Label of a token that carries no loss."""
REDUCTIONS = {"token": 0.0, "square": -0.5, "sample": -1.0}
"""Name of a reduction to the power of a document's labelled tokens that weighs each of them."""


def next_token_loss(
    logits_BLV: Tensor,
    labels_BL: Tensor,
    loss_weights_BL: Tensor | None = None,
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """Weighted cross-entropy of every labelled token, predicted from the one before it.

    Args:
        logits_BLV: the model's output.
        labels_BL: token ids aligned with the input, `IGNORE` where no loss is wanted.
        loss_weights_BL: weight of each label, 1 where None.
        normalizer: what the weighted sum is divided by; None: the sum of the weights of this batch. Training passes
            the sum over the whole global batch, so that a step does not depend on how the batch was split.

    Returns:
        A float32 scalar; zero when nothing is labelled.
    """
    labels = labels_BL[:, 1:]
    chosen = labels != IGNORE
    losses = F.cross_entropy(logits_BLV[:, :-1][chosen].float(), labels[chosen], reduction="none")
    weights = torch.ones_like(losses) if loss_weights_BL is None else loss_weights_BL[:, 1:][chosen].float()
    if normalizer is None:
        normalizer = weights.sum().clamp_min(torch.finfo(torch.float32).tiny)
    return (losses * weights).sum() / normalizer


def document_loss_weights(labels_BL: Tensor, document_ids_BL: Tensor, reduction: str = "square") -> Tensor:
    """Weight of every label: a power of how many labels its document has.

    Args:
        labels_BL: labels, `IGNORE` where no loss is wanted.
        document_ids_BL: the document of each token, numbered from 0 in each row, `PADDING` for none.
        reduction: `token` weighs every token 1, `sample` every document 1, `square` in between (n^-0.5).

    Returns:
        (B, L) float32, zero where there is no label.

    Raises:
        ValueError: the reduction is unknown.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"unknown loss reduction {reduction!r}: choose one of {', '.join(REDUCTIONS)}")
    labelled = (labels_BL != IGNORE) & (document_ids_BL != PADDING)
    documents = document_ids_BL.clamp_min(0)
    counts = torch.zeros(labels_BL.shape[0], int(documents.max()) + 1, device=labels_BL.device)
    counts.scatter_add_(1, documents, labelled.float())
    weights = counts.gather(1, documents).clamp_min(1) ** REDUCTIONS[reduction]
    return weights * labelled
