"""The one loss: next-token cross-entropy, weighted per token (ARCHITECTURE: training, three stages)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from neo.model.positions import PADDING

IGNORE = -100
"""Label of a token that carries no loss."""
CHUNK_LOGITS = 2**27
"""Logits that the loss holds at once: with what is computed from them 1.5 GiB, whatever the length of the batch."""
REDUCTIONS = {"token": 0.0, "square": -0.5, "sample": -1.0}
"""Name of a reduction to the power of a document's labelled tokens that weighs each of them."""


def next_token_loss(
    hidden_BLC: Tensor,
    labels_BL: Tensor,
    head: Callable[[Tensor], Tensor],
    loss_weights_BL: Tensor | None = None,
    normalizer: Tensor | float | None = None,
    chunk: int = 1024,
) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy of every labelled token, predicted from the one before it.

    Logits are made where there are labels only, and of `chunk` places at a time: in the backward pass they are made
    again, chunk by chunk, rather than kept (exact; at 151 936 words and 4096 tokens a quarter of the memory). The head
    is called as a module, once a chunk and so not equally often on all ranks: where it is sharded it must belong to
    the group of the whole model, which is gathered once a forward.

    Args:
        hidden_BLC: what the head reads.
        labels_BL: token ids aligned with the input, `IGNORE` where no loss is wanted.
        head: (N, C) hidden states to (N, V) logits.
        loss_weights_BL: weight of each label, 1 where None.
        normalizer: what the weighted sum is divided by; None: the sum of the weights of this batch. Training passes
            the sum over the whole global batch, so that a step does not depend on how the batch was split.
        chunk: places whose logits are held at once.

    Returns:
        The loss, a float32 scalar, zero when nothing is labelled; and (B, L) float32 the cross-entropy of each label,
        unweighted, zero where there is none, without gradient.
    """
    chosen = labels_BL[:, 1:] != IGNORE
    hidden_NC, labels_N = hidden_BLC[:, :-1][chosen], labels_BL[:, 1:][chosen]

    def losses_of(hidden: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(head(hidden).float(), labels, reduction="none")

    if len(labels_N) <= chunk:
        losses_N = losses_of(hidden_NC, labels_N)
    else:
        # The head draws no random numbers, so there are none to repeat.
        again = partial(checkpoint, losses_of, use_reentrant=False, preserve_rng_state=False)
        losses_N = torch.cat([again(*pair) for pair in zip(hidden_NC.split(chunk), labels_N.split(chunk), strict=True)])
    weights_N = torch.ones_like(losses_N) if loss_weights_BL is None else loss_weights_BL[:, 1:][chosen].float()
    if normalizer is None:
        normalizer = weights_N.sum().clamp_min(torch.finfo(torch.float32).tiny)
    token_losses_BL = torch.zeros(labels_BL.shape, device=labels_BL.device)
    token_losses_BL[:, 1:][chosen] = losses_N.detach()
    return (losses_N * weights_N).sum() / normalizer, token_losses_BL


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
