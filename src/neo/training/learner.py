"""What one step does with a batch: forward and backward, over all ranks and in pieces, and the update."""

import math
import signal
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from neo.data.loader import Batch
from neo.model.loss import document_loss_weights
from neo.model.neo import NeoForConditionalGeneration, NeoOutput
from neo.training.compute import prepare_layers
from neo.training.config import TrainConfig
from neo.training.distributed import Ranks, choose_strategy, spread
from neo.training.microbatch import micro_batches
from neo.training.optimizer import build_optimizers, set_learning_rates
from neo.training.stopping import Asked


@dataclass(frozen=True)
class Step:
    """What one step gave, over all ranks unless said otherwise."""

    loss: float
    norm: float
    """Of the gradient, before clipping."""
    rate: float
    token_losses_BL: Tensor
    """Of the labels in this rank's rows, on its device."""
    weights_BL: Tensor
    """Of these labels."""
    stop: int
    """The signal that asked some rank to stop; 0: none."""
    guilty: bool
    """Whether this rank's part of the loss is not finite."""

    @property
    def finite(self) -> bool:
        """Whether loss and gradient are; otherwise the step was left out."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


class Learner:
    """A model spread over the ranks, and its optimisers."""

    def __init__(self, config: TrainConfig, model: NeoForConditionalGeneration, ranks: Ranks) -> None:
        """Prepare a model, what is not to be trained frozen; see `neo.training.distributed.spread`.

        Raises:
            ValueError: strategy, optimiser and device do not go together.
        """
        self.config, self.model, self.ranks = config, model, ranks
        strategy = choose_strategy(model, config.distributed, ranks)
        sharded, bf16 = strategy in ("fsdp", "hsdp"), config.precision == "bf16"
        if sharded and config.optimizer.name == "muon":
            raise ValueError(
                "optimizer.name=muon needs whole matrices, and fsdp shards them; use adamw or strategy ddp"
            )
        self.autocast = bf16 and not sharded  # sharded layers are in bfloat16 themselves
        prepare_layers(model, config, ranks.device)
        self.network = spread(model, strategy, config.distributed, ranks, bf16)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizers = build_optimizers(model, config.optimizer)

    def step(self, number: int, batch: Batch, asked: Asked) -> Step:
        """One optimiser step, left out where loss or gradient are not finite.

        Args:
            number: steps done before it.
            batch: this rank's part of the global batch.
            asked: whether this rank is to stop.
        """
        config, ranks = self.config, self.ranks
        # Random numbers of a step depend on nothing before it: a run that goes on draws the same.
        torch.manual_seed((config.seed * config.steps + number) * ranks.size + ranks.rank)
        pieces = self._pieces(batch)
        normalizer = self._normalizer(pieces)
        loss = torch.zeros((), device=ranks.device)
        token_losses: list[Tensor] = []
        for count, piece in enumerate(pieces, start=1):
            with self._last_of_step(count == len(pieces)):
                output = self._forward(piece, normalizer)
                output.loss.backward()
            loss += output.loss.detach()
            token_losses.append(cast(Tensor, output.token_losses))
        norm = _whole(torch.nn.utils.clip_grad_norm_(self.trained.values(), config.optimizer.clip))
        stops = [asked.signal == signal.SIGTERM, asked.signal == signal.SIGINT]
        told = torch.tensor(stops, dtype=torch.float32, device=ranks.device)
        *stops, whole_loss = ranks.sum(torch.cat([told, loss[None] / ranks.size])).tolist()
        rate = set_learning_rates(self.optimizers, number, config.steps, config.optimizer)
        weights = torch.cat([piece["loss_weights"] for piece in pieces])
        guilty = not math.isfinite(loss.item())
        step = Step(whole_loss, norm, rate, torch.cat(token_losses), weights, _signal(*stops), guilty)
        for optimizer in self.optimizers:
            if step.finite:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return step

    @torch.no_grad()
    def loss_on(self, batches: Iterable[Batch]) -> float:
        """The loss over several batches as if they were one, without learning from them.

        Raises:
            ValueError: there is no label in them.
        """
        self.model.eval()
        total = torch.zeros(2, device=self.ranks.device)
        for batch in batches:
            for piece in self._pieces(batch):
                one = torch.ones((), device=self.ranks.device)
                total += torch.stack([self._forward(piece, one).loss, piece["loss_weights"][:, 1:].sum()])
        self.model.train()
        loss, weight = self.ranks.sum(total).tolist()
        if not weight:
            names = ", ".join(self.config.validation.sources)
            raise ValueError(
                f"validation.sources {names}: no record of the first {self.config.validation.batches} batches has an "
                "answer to measure the loss on; neo data check tells what is wrong with the records"
            )
        return loss / weight

    def _pieces(self, batch: Batch) -> list[dict[str, Tensor]]:
        """The rank's rows as micro-batches on its device, with the weights of their labels."""
        config, device = self.config, self.ranks.device
        rows = config.micro_batch_rows or len(batch.inputs["input_ids"])
        ids, vision = self.model.config.image_token_id, self.model.config.vision_config
        pieces = []
        for piece in micro_batches(batch.inputs, rows, ids, vision):
            there = {name: tensor.to(device, non_blocking=True) for name, tensor in piece.items()}
            weights = document_loss_weights(there["labels"], there["document_ids"], config.loss_reduction)
            pieces.append(there | {"loss_weights": weights})
        return pieces

    def _normalizer(self, pieces: list[dict[str, Tensor]]) -> Tensor:
        """What the loss is divided by: the weights of the whole global batch. Ranks average, so each has its share."""
        total = torch.stack([piece["loss_weights"][:, 1:].sum() for piece in pieces]).sum()
        return self.ranks.sum(total).clamp_min(torch.finfo(torch.float32).tiny) / self.ranks.size

    def _forward(self, piece: dict[str, Tensor], normalizer: Tensor) -> NeoOutput:
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.autocast):
            return self.network(**piece, num_items_in_batch=normalizer, return_logits=False)

    def _last_of_step(self, last: bool) -> AbstractContextManager[None]:
        """Replicas average their gradients once a step; shards each time, to hold no whole gradient."""
        if isinstance(self.network, DistributedDataParallel) and not last:
            return self.network.no_sync()
        return nullcontext()


def _whole(norm: Any) -> float:
    """The number in a tensor, sharded or not."""
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()


def _signal(terminated: float, interrupted: float) -> int:
    return signal.SIGTERM if terminated else signal.SIGINT if interrupted else 0
