"""The processes that train together, and how a model is spread over them.

torchrun starts the processes; this module joins them (`joined`) and spreads the model (`spread`):

- `ddp`: every rank holds the whole model, gradients are averaged;
- `fsdp`: FSDP2, weights, gradients and optimiser state sharded over all ranks, layer by layer;
- `hsdp`: sharded inside groups of `shard_size` ranks, the groups being copies of one another.

Over gloo on CPUs and over NCCL on GPUs.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from neo.model.device import choose_device
from neo.model.neo import NeoForConditionalGeneration, NeoLayer
from neo.training.config import DistributedConfig

logger = logging.getLogger(__name__)

Strategy = Literal["none", "ddp", "fsdp", "hsdp"]
T = TypeVar("T")

STATE_BYTES = 16
"""Of a trained parameter: float32 weight, gradient and AdamW's two means."""
DDP_SHARE = 0.25
"""`auto` replicates a model whose state takes at most this share of a GPU's memory."""
PATIENCE = timedelta(hours=2)
"""How long ranks wait for one that prepares something alone, as rank 0 that reads a checkpoint."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    device: torch.device
    rank: int = 0
    size: int = 1
    local_size: int = 1
    """Ranks on this machine."""
    control: dist.ProcessGroup | None = None
    """For small objects, on CPU; None in a process by itself, as is the next."""
    saving: dist.ProcessGroup | None = None
    """For checkpoints, which are written beside the training."""

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes and tells."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the ranks, on each of them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """The ranks' values, on each of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns on rank 0, on every rank; what it raises there is raised on every rank."""
        if self.size == 1:
            return make()
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = make()
            except Exception as error:  # noqa: BLE001 - raised below, on every rank
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, group=self.control)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]


@contextmanager
def joined(config: DistributedConfig, device: str = "auto") -> Iterator[Ranks]:
    """Join the processes that torchrun has started, until the block ends; by itself a process is all ranks.

    Raises:
        ValueError: the device is not there, or several processes are to train with strategy none.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 and config.strategy not in ("fsdp", "hsdp"):
        yield Ranks(choose_device(device))
        return
    if config.strategy == "none":
        raise ValueError(f"distributed.strategy=none is for one process but {size} were started; use auto")
    rank, local_rank = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = choose_device(f"cuda:{local_rank}" if size > 1 else f"cuda:{chosen.index or 0}")
        torch.cuda.set_device(chosen)
    elif chosen.type != "cpu":
        raise ValueError(f"device={device!r} cannot be trained on by several processes or sharded; use cuda or cpu")
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    if "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend)
    else:  # one process that shards all the same, for cpu_offload
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        with _quiet(rank > 0):
            yield Ranks(
                chosen,
                rank,
                size,
                int(os.environ.get("LOCAL_WORLD_SIZE", size)),
                dist.new_group(backend="gloo", timeout=PATIENCE),
                dist.new_group(backend="gloo", timeout=PATIENCE),
            )
    finally:
        dist.destroy_process_group()


@contextmanager
def _quiet(quiet: bool) -> Iterator[None]:
    """Leave it to rank 0 to tell what all ranks see."""
    ours = logging.getLogger("neo")
    before = ours.level
    if quiet:
        ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ours.setLevel(before)


def simplest_strategy(model: nn.Module, memory: int) -> Strategy:
    """Of several GPUs with so many bytes each: whole replicas where they leave most of it free."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return "ddp" if parameters * STATE_BYTES <= DDP_SHARE * memory else "fsdp"


def choose_strategy(model: nn.Module, config: DistributedConfig, ranks: Ranks) -> Strategy:
    """The strategy of a run; `auto` is the simplest that fits.

    Raises:
        ValueError: it does not go with the device or the number of ranks.
    """
    strategy = config.strategy
    if strategy == "auto":
        strategy = "none" if ranks.size == 1 else "ddp"
        if ranks.size > 1 and ranks.device.type == "cuda":
            strategy = simplest_strategy(model, torch.cuda.get_device_properties(ranks.device).total_memory)
        if ranks.size > 1:
            logger.info("%d ranks, distributed.strategy=%s", ranks.size, strategy)
    if strategy == "ddp" and ranks.size == 1:
        strategy = "none"  # the same without a group of processes
    if config.cpu_offload and (strategy not in ("fsdp", "hsdp") or ranks.device.type != "cuda"):
        raise ValueError(
            f"distributed.cpu_offload needs a GPU and strategy fsdp or hsdp, not {ranks.device.type} and {strategy}"
        )
    return strategy


def spread(
    model: NeoForConditionalGeneration, strategy: Strategy, config: DistributedConfig, ranks: Ranks, bf16: bool
) -> nn.Module:
    """Put a model on the ranks' devices, trained parameters already chosen.

    A rank may hold the model on the meta device: it then gets the values of rank 0. Where rank 0 holds it so too, the
    weights are left unset, for a checkpoint to fill.

    Args:
        model: float32; it is changed in place and keeps its names.
        strategy: what `choose_strategy` returned.
        config: of sharding.
        ranks: this process among the others.
        bf16: sharded layers compute in bfloat16; gradients are summed in float32.

    Returns:
        What to call in place of the model, the model itself unless replicated by DDP.

    Raises:
        ValueError: `shard_size` does not divide the number of ranks.
    """
    if strategy not in ("fsdp", "hsdp"):
        settle(model, ranks.device)
        if strategy == "none":
            return model
        devices = [ranks.device] if ranks.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True)
    values = {name: parameter.detach() for name, parameter in model.named_parameters() if not parameter.is_meta}
    options = {
        "mesh": _mesh(strategy, config, ranks),
        # Inputs are not cast: the loss weights among them are to stay float32.
        "mp_policy": MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bf16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
        ),
        "offload_policy": CPUOffloadPolicy() if config.cpu_offload else OffloadPolicy(),
    }
    for module in model.modules():
        if isinstance(module, NeoLayer):
            fully_shard(module, **options)
    # Embedding, patch embedding, last norm and head are one group: a tied head is then the same shard.
    fully_shard(model, reshard_after_forward=False, **options)
    _fill(model, values, torch.device("cpu") if config.cpu_offload else ranks.device, ranks)
    return model


def settle(model: NeoForConditionalGeneration, device: torch.device) -> None:
    """Bring a model to a device; weights on the meta device get memory and no values."""
    if not any(parameter.is_meta for parameter in model.parameters()):
        model.to(device)
        return
    model.to_empty(device=device)
    model.tie_weights()


def whole_state(model: nn.Module, ranks: Ranks) -> dict[str, Tensor]:
    """The parameters of a spread model in one piece, tied ones once; on ranks above 0 nothing."""
    names = dict(model.named_parameters()).keys()
    if ranks.control is None:
        return {name: value for name, value in model.state_dict().items() if name in names}
    whole = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: value for name, value in whole.items() if name in names}  # type: ignore[misc]


def _mesh(strategy: Strategy, config: DistributedConfig, ranks: Ranks) -> Any:
    if strategy == "fsdp":
        return init_device_mesh(ranks.device.type, (ranks.size,), mesh_dim_names=("shard",))
    shard_size = config.shard_size or ranks.local_size
    if ranks.size % shard_size:
        raise ValueError(f"distributed.shard_size={shard_size} does not divide the {ranks.size} ranks")
    shape = (ranks.size // shard_size, shard_size)
    return init_device_mesh(ranks.device.type, shape, mesh_dim_names=("replicate", "shard"))


def _fill(model: nn.Module, values: dict[str, Tensor], device: torch.device, ranks: Ranks) -> None:
    """Give ranks that hold no values those of rank 0."""
    missing = ranks.gather(not values)
    if not values:
        model.to_empty(device=device)
    if any(missing) and not missing[0]:
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
        set_model_state_dict(model, dict(values) if ranks.first else {}, options=options)
