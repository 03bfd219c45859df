"""The one loss: next-token cross-entropy, weighted per token (ARCHITECTURE: training, three stages)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neo.model.config import IGNORE, PADDING

CHUNK_LOGITS = 2**27
"""Logits that the loss holds at once: with what is computed from them 1.5 GiB, whatever the length of the batch."""
REDUCTIONS = {"token": 0.0, "square": -0.5, "sample": -1.0}
"""Name of a reduction to the power of a document's labelled tokens that weighs each of them."""


def next_token_loss(
    hidden_BLC: Tensor,
    labels_BL: Tensor,
    head: nn.Module,
    loss_weights_BL: Tensor | None = None,
    normalizer: Tensor | float | None = None,
    chunk: int = 1024,
) -> tuple[Tensor, Tensor]:
    """Weighted cross-entropy of every labelled token, predicted from the one before it.

    Logits are made where there are labels only, and of `chunk` places at a time, see `_InChunks`.

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
    if loss_weights_BL is None:
        loss_weights_BL = torch.ones(labels_BL.shape, device=labels_BL.device)
    weights_N = loss_weights_BL[:, 1:][chosen].float()
    if len(labels_N) > chunk and torch.is_grad_enabled():
        trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
        total, losses_N = _InChunks.apply(hidden_NC, labels_N, weights_N, head, chunk, *trained)
    else:
        pairs = zip(hidden_NC.split(chunk), labels_N.split(chunk), strict=True)
        losses_N = torch.cat([_losses(head, hidden, labels) for hidden, labels in pairs])
        total = (losses_N * weights_N).sum()
    if normalizer is None:
        normalizer = weights_N.sum().clamp_min(torch.finfo(torch.float32).tiny)
    token_losses_BL = torch.zeros(labels_BL.shape, device=labels_BL.device)
    token_losses_BL[:, 1:][chosen] = losses_N.detach()
    return total / normalizer, token_losses_BL


def _losses(head: nn.Module, hidden_NC: Tensor, labels_N: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden_NC).float(), labels_N, reduction="none")


class _InChunks(torch.autograd.Function):
    """The weighted sum of many losses, and each of them, from logits of `chunk` places at a time.

    The gradients are taken together with the losses, chunk by chunk, so that no logits are kept or made twice: exact,
    as fast as the plain loss, and at 4096 labels of 151 936 words within a third of its memory. The head is called as
    a module, once a chunk and so not equally often on all ranks: where it is sharded, it must belong to the group of
    the whole model, which is gathered once a forward.
    """

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        hidden_NC, _, weights_N, head, chunk, *trained = inputs
        losses, by_hidden = [], []
        by_trained = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in trained]
        for hidden, labels, weights in zip(*(all_of.split(chunk) for all_of in inputs[:3]), strict=True):
            with torch.enable_grad():
                hidden = hidden.detach().requires_grad_()
                each = _losses(head, hidden, labels)
                gradients = torch.autograd.grad((each * weights).sum(), [hidden, *trained])
            losses.append(each.detach())
            by_hidden.append(gradients[0])
            for total, gradient in zip(by_trained, gradients[1:], strict=True):
                total += gradient
        losses_N = torch.cat(losses)
        ctx.save_for_backward(torch.cat(by_hidden), *by_trained)
        ctx.dtypes = [tensor.dtype for tensor in (hidden_NC, *trained)]
        ctx.mark_non_differentiable(losses_N)
        return (losses_N * weights_N).sum(), losses_N

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        gradients = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        by_hidden, *by_trained = [(gradient.float() * outputs[0]).to(dtype) for gradient, dtype in gradients]
        return by_hidden, None, None, None, None, *by_trained


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
