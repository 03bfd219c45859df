"""What a run would train, hold in memory and go through, told before it starts; nothing of the model is allocated."""

from dataclasses import asdict, dataclass, replace

import torch
import yaml
from torch import nn

from neo.model.attention import padded_sdpa
from neo.model.config import NeoConfig
from neo.model.device import choose_device
from neo.model.loss import CHUNK_LOGITS
from neo.model.neo import NeoForConditionalGeneration, NeoLayer
from neo.model.rope import native_rotary
from neo.training.config import TrainConfig
from neo.training.distributed import simplest_strategy
from neo.training.lora import add_lora
from neo.training.stages import Parts, choose_trained, parts, table
from neo.training.start import starting_config

MIB = 2**20
GPU_MEMORY = 80 * 2**30
"""Bytes of a GPU that strategy `auto` is planned for; a run asks the GPUs it has."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of a weight in 4 bits, with its scales."""
OF_A_MACHINE = 8
"""GPUs that hsdp shards over where the recipe does not say."""
ALONE = ("none", "ddp")
"""Strategies with the whole model on each GPU."""


@dataclass(frozen=True)
class Memory:
    """Bytes that one GPU holds at the most; the CUDA context and gaps between what is held come on top."""

    state: float
    """Weights, gradients and optimiser."""
    gathered: float
    """Shards that are put together while they are used, or the copies in bf16 that autocast makes."""
    inputs: float
    """Of layers that are computed again in the backward pass."""
    remembered: float
    """For the backward pass by the other layers, and by one that is computed again."""
    logits: float
    """And what is computed from them."""

    @property
    def total(self) -> float:
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Plan:
    """A run that has not started."""

    config: TrainConfig
    parts: Parts
    """Of the model, on the meta device; a parameter that is trained requires a gradient."""
    gpus: int
    strategy: str
    memory: Memory
    place: str
    """Whose memory that is, in words."""

    @property
    def step_tokens(self) -> int:
        """Of all rows, padding included."""
        return self.config.data.rows_per_batch * self.config.data.max_seq_length

    def report(self) -> str:
        """The recipe as YAML, and the rest as comments below it, so that all of it is a recipe again."""
        config, memory = self.config, self.memory
        what = "samples" if config.data.batch_by == "samples" else "rows"
        held = {
            "weights, gradients, optimiser": memory.state,
            "gathered" if self.strategy not in ALONE else "copies in bf16": memory.gathered,
            "inputs of recomputed layers": memory.inputs,
            "remembered by layers": memory.remembered,
            "logits": memory.logits,
            "in all, about": memory.total,
        }
        lines = [
            *table(self.parts).splitlines(),
            "",
            f"memory of {self.place}:",
            *(f"{name:<32}{size / MIB:>12,.1f} MiB" for name, size in held.items()),
            "",
            f"{config.steps:,} steps of {config.data.rows_per_batch:,} {what}",
            f"{self.step_tokens:,} tokens a step at the most, {self.step_tokens * config.steps:,} in all",
        ]
        recipe = yaml.safe_dump(config.to_dict(), sort_keys=False)
        return recipe + "\n".join(f"# {line}".rstrip() for line in lines)


def plan(config: TrainConfig, gpus: int | None = None) -> Plan:
    """The plan of a run on so many GPUs, or else on the recipe's device on this machine.

    Raises:
        ValueError: the model is not there or does not suit the stage, or the rows cannot be shared out.
    """
    device = "cuda" if gpus else config.device.partition(":")[0]
    device = choose_device(device).type if device == "auto" else device
    gpus = gpus or 1
    if config.data.rows_per_batch % gpus:
        raise ValueError(
            f"rows_per_batch={config.data.rows_per_batch} rows cannot be shared out equally among {gpus} GPUs"
        )
    model_config = starting_config(config.model, config.stage)
    with torch.device("meta"):
        model = NeoForConditionalGeneration(model_config)
    model.tie_weights()
    if config.lora is None:
        choose_trained(model, config.stage)
        by_part = parts(model)
    else:
        by_part = add_lora(model, replace(config.lora, quantize=None), "", config.seed, bf16=False)
    strategy = config.distributed.strategy
    if strategy == "auto":
        strategy = "none" if gpus == 1 else simplest_strategy(model, GPU_MEMORY)
    place = f"a GPU, of {gpus} with distributed.strategy={strategy}"
    if device != "cuda":
        place = f"the training process, here on {device} (--gpus N reckons with N GPUs)"
    return Plan(config, by_part, gpus, strategy, memory_of(config, model, strategy, gpus), place)


def memory_of(config: TrainConfig, model: NeoForConditionalGeneration, strategy: str, gpus: int) -> Memory:
    """What one GPU of so many holds.

    Args:
        config: the recipe.
        model: best on the meta device; what is trained requires a gradient.
        strategy: of `DistributedConfig`, not auto.
        gpus: how many there are.
    """
    text = model.config.text_config
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    state = 4.0 * total + 12 * trained
    layers = model.model.language_model.layers
    layer = sum(parameter.numel() for parameter in layers[0].parameters())
    outside = total - len(layers) * layer
    if config.lora is not None and config.lora.quantize:
        frozen = [m.weight for m in layers.modules() if isinstance(m, nn.Linear) and not m.weight.requires_grad]
        state -= (4 - NF4_BYTES) * sum(weight.numel() for weight in frozen)
    gathered = 2.0 * total if config.precision == "bf16" else 0.0
    if strategy not in ALONE:
        shards = (config.distributed.shard_size or min(OF_A_MACHINE, gpus)) if strategy == "hsdp" else gpus
        # Two layers at a time and what stands outside them, and their gradients until they are summed in float32.
        width = 2 if config.precision == "bf16" else 4
        gathered = width * (outside + 2 * layer) + (width + 4) * max(layer, outside if trained == total else 0)
        state = 0.0 if config.distributed.cpu_offload else state / shards
    rows = config.data.rows_per_batch // gpus
    tokens = min(rows, config.micro_batch_rows or rows) * config.data.max_seq_length
    wide = 1.0 if config.precision == "bf16" else 1.5  # measured: 1.0 to 1.5, where runs of words are short 1.0
    remembered = wide * remembered_bytes(model.config)
    every = {"none": 0, "selective": config.activation_checkpointing_every, "full": 1}[config.activation_checkpointing]
    again = len(layers) // every if every else 0
    kept = (len(layers) - again + (1 if again else 0)) * remembered
    inputs = again * text.hidden_size * (2 if config.precision == "bf16" else 4)
    logits = 12 * min(tokens * text.vocab_size, CHUNK_LOGITS)
    return Memory(state, gathered, tokens * inputs, tokens * kept, logits)


def remembered_bytes(config: NeoConfig) -> float:
    """What a layer in bf16 keeps of each token for its backward pass; found by running one."""
    text, length = config.text_config, 256
    kept: dict[int, torch.UntypedStorage] = {}
    with torch.device("meta"):
        layer = NeoLayer(text, 0).to(torch.bfloat16)  # type: ignore[arg-type]
        x = torch.empty(1, length, text.hidden_size, dtype=torch.bfloat16, requires_grad=True)  # type: ignore[union-attr]
        bases = text.rope_theta, text.rope_theta_hw  # type: ignore[union-attr]
        rotary = native_rotary(torch.empty(3, 1, length), text.head_dim, *bases, x.dtype)  # type: ignore[union-attr]
    weights = {parameter.untyped_storage()._cdata for parameter in layer.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x, rotary, lambda query, key, value: padded_sdpa(query, key, value, 1.0, causal=True), None)
    return sum(storage.nbytes() for place, storage in kept.items() if place not in weights) / length
