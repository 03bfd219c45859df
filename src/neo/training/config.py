"""What a training run is made of: the fields of recipes (`neo.training.recipe`)."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from neo.data.config import DataConfig, SourceConfig, at_least
from neo.model.adapter import PROJECTIONS
from neo.model.config import NeoTextConfig, NeoVisionConfig
from neo.suggestion import suggestion
from neo.training.metrics import MetricsConfig
from neo.training.optimizer import OptimizerConfig

STAGES = ("llm", "pt", "mt", "sft")


@dataclass
class ModelConfig:
    """Where the weights come from: exactly one of `path`, `preset` and `from_llm`."""

    path: str | None = None
    """A NEO to go on from: its folder, or a name as `neo.load_model` takes it."""
    preset: str | None = None
    """Size of a fresh model; in stage llm only its language model is made."""
    from_llm: str | None = None
    """Folder of a language model (Qwen3, or what stage llm made) to grow a NEO from."""
    pre_buffer_layers: int | None = None
    """Fresh layers to put in front of that language model."""
    text: dict[str, Any] = field(default_factory=dict)
    """Fields of a preset's decoder to change."""
    vision: dict[str, Any] = field(default_factory=dict)
    """Fields of the patch embedding and the picture sizes to change in a fresh or grown model; in one that is gone on
    from, only the picture sizes: min_pixels and max_pixels."""
    tokenizer_samples: int = 20_000
    """Samples of the training stream that the tokenizer of a preset's fresh model is made from."""

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("path", "preset", "from_llm") if getattr(self, name)}
        if len(given) != 1:
            raise ValueError(f"model needs exactly one of path, preset and from_llm, got {given or 'none of them'}")
        if (self.from_llm is None) != (self.pre_buffer_layers is None):
            raise ValueError(
                f"model.from_llm={self.from_llm!r} and model.pre_buffer_layers={self.pre_buffer_layers} go together"
            )
        if self.path and (self.text or self.vision.keys() - {"min_pixels", "max_pixels"}):
            raise ValueError(
                f"model.path={self.path!r} fixes all sizes; model.text cannot change them, and model.vision only "
                "min_pixels and max_pixels"
            )
        if self.from_llm and self.text:
            raise ValueError(
                f"model.from_llm={self.from_llm!r} fixes the decoder's sizes; model.text cannot change them"
            )
        for part, kind in (("text", NeoTextConfig), ("vision", NeoVisionConfig)):
            known = {one.name for one in fields(kind)}
            if unknown := sorted(getattr(self, part).keys() - known):
                raise ValueError(f"model.{part}.{unknown[0]} is not a field{suggestion(unknown[0], known)}")


@dataclass
class DistributedConfig:
    """How several processes, started by torchrun, share the work."""

    strategy: Literal["auto", "none", "ddp", "fsdp", "hsdp"] = "auto"
    """One process, replicas, sharding over all ranks, or sharding inside groups of ranks; auto: none in one process,
    replicas where they take at most a quarter of a GPU's memory, else fsdp."""
    shard_size: int | None = None
    """Ranks of a group of hsdp; those of one machine by default."""
    cpu_offload: bool = False
    """With fsdp and hsdp: weights and optimiser state wait in the CPU's memory; slower, for what does not fit."""

    def __post_init__(self) -> None:
        if self.shard_size is not None:
            at_least(self, 1, "shard_size")
            if self.strategy != "hsdp":
                raise ValueError(f"distributed.shard_size belongs to strategy hsdp, not {self.strategy}")


@dataclass
class ValidationConfig:
    """Records that the loss is measured on at every checkpoint, without learning from them."""

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """As `data.sources`; none: no validation."""
    batches: int = 4
    """So many batches of `data.rows_per_batch` rows, the same ones each time."""

    def __post_init__(self) -> None:
        at_least(self, 1, "batches")


@dataclass
class LoraConfig:
    """Adapters that are trained in place of the model (stage sft)."""

    rank: int = 16
    """Width of the adapters."""
    alpha: int | None = None
    """What they are added with is alpha / rank; twice the rank by default."""
    dropout: float = 0.0
    """Share of their inputs left out at random while training."""
    target_modules: list[str] | None = None
    """Projections of the layers that get one, such as q_proj and q_proj_hw; all by default."""
    quantize: Literal["nf4"] | None = None
    """QLoRA: hold the matrices of the frozen layers in 4 bits."""

    def __post_init__(self) -> None:
        at_least(self, 1, "rank")
        if self.alpha is not None:
            at_least(self, 1, "alpha")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout={self.dropout} must be at least 0 and below 1")
        if self.target_modules is not None and not self.target_modules:
            raise ValueError("lora.target_modules is empty; name projections, or leave it out for all")
        for name in self.target_modules or ():
            if name not in PROJECTIONS:
                raise ValueError(f"lora.target_modules: {name!r} is not a projection{suggestion(name, PROJECTIONS)}")

    @property
    def scaled_by(self) -> int:
        """`alpha`, its default filled in."""
        return 2 * self.rank if self.alpha is None else self.alpha


@dataclass
class TrainConfig:
    """One stage of training."""

    stage: Literal["llm", "pt", "mt", "sft"]
    """Which parts are trained, see `neo.training.stages`."""
    model: ModelConfig
    """What to start from."""
    data: DataConfig
    """What to learn from."""
    output_dir: str
    """Folder of the run: the finished model, and checkpoints and metrics on the way."""
    steps: int = 1000
    """Optimiser steps in all."""
    lora: LoraConfig | None = None
    """Train adapters beside the frozen model instead of the model (stage sft)."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How to learn."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Arithmetic of the forward pass; weights and optimiser are float32 in any case."""
    micro_batch_rows: int | None = None
    """Rows that a process computes at once; gradients of a step's rows add up. All of them by default."""
    distributed: DistributedConfig = field(default_factory=DistributedConfig)
    """How several processes share the work."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """Layers that are computed again in the backward pass instead of remembered: none, every
    `activation_checkpointing_every`-th, or all. Gradients stay the same."""
    activation_checkpointing_every: int = 2
    """See `activation_checkpointing`."""
    attention: Literal["auto", "eager", "sdpa", "flex_attention"] = "auto"
    """How attention is computed; auto: flex_attention on a GPU, sdpa elsewhere."""
    loss_reduction: Literal["token", "square", "sample"] = "square"
    """Weight of a token by the number n of its document's labels: 1, n^-0.5 or 1/n."""
    seed: int = 0
    """Of fresh weights and the order of data."""
    save_every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """Newest checkpoints kept."""
    keep_best: bool = True
    """Keep also the one of the lowest validation loss (without validation: training loss since the one before)."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """What the loss is measured on at every checkpoint."""
    max_skipped_steps: int = 10
    """Steps that may be skipped because loss or gradient is not finite, before the run stops."""
    log_every: int = 10
    """Steps between lines of metrics."""
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    """Where they go beside the output folder, and what they are measured by."""
    compile: bool = False
    """Compile each layer with torch.compile, which needs a C++ compiler; 1.7 times faster on CPU."""
    device: str = "auto"
    """cpu, cuda, cuda:N or mps; auto is the best there is."""
    threads: int | None = None
    """Threads of the training process; torch's choice by default."""
    resume: bool = True
    """Go on from the newest checkpoint in output_dir; false refuses a folder that has one."""

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "save_every", "keep", "log_every")
        at_least(self, 1, "activation_checkpointing_every")
        at_least(self, 0, "max_skipped_steps")
        for name in ("threads", "micro_batch_rows"):
            if getattr(self, name) is not None:
                at_least(self, 1, name)
        if self.optimizer.name == "muon" and self.distributed.strategy in ("fsdp", "hsdp"):
            raise ValueError(
                f"optimizer.name=muon needs whole matrices and distributed.strategy={self.distributed.strategy} shards "
                "them; use adamw, or strategy ddp"
            )
        self.optimizer.warmup(self.steps)  # raises where it does not fit
        if self.lora is not None and (self.stage != "sft" or not self.model.path):
            raise ValueError(
                f"lora belongs to stage sft and a model from model.path, not to stage {self.stage} and "
                f"model.path={self.model.path}"
            )
        if self.lora is not None and self.lora.quantize and self.distributed.strategy in ("fsdp", "hsdp"):
            raise ValueError(
                f"lora.quantize={self.lora.quantize} keeps the whole model on each rank; use distributed.strategy ddp "
                f"with it, not {self.distributed.strategy}"
            )
        if self.stage == "llm" and self.model.from_llm:
            raise ValueError("stage llm trains a language model by itself; model.from_llm belongs to stage pt")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in a recipe."""
        return asdict(self)
