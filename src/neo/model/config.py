"""The sizes of a NEO and the names its published `config.json` gives them.

A published configuration holds two parts, `llm_config` (a Qwen3 configuration with a few more fields) and
`vision_config`. Here they are `text_config` and `vision_config`; `to_dict` writes the published names back, so
that the released code reads what we save.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

IMAGE_MEAN = (0.485, 0.456, 0.406)
"""Per-channel mean of RGB in [0, 1] that pixels are normalised with."""
IMAGE_STD = (0.229, 0.224, 0.225)
"""Per-channel standard deviation of RGB in [0, 1] that pixels are normalised with."""
IGNORE = -100
"""Label of a token that carries no loss."""
PADDING = -1
"""Document id of a token that belongs to no document."""

PUBLISHED_TEXT_FIELDS = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "max_window_layers": 28,
    "rope_scaling": None,
    "sliding_window": None,
}
"""What published files say of every decoder; it means nothing to a NEO."""


@strict
class NeoTextConfig(PreTrainedConfig):
    """The decoder: Qwen3's fields plus the height and width rotary bases and the depth of the pre-Buffer."""

    model_type = "neo_text"
    base_config_key = "text_config"
    attribute_map = {"pre_buffer_layers": "extra_num_layers"}
    keys_to_ignore_at_inference = ["past_key_values"]
    # Attention heads are laid out head by head in every projection, so all of them split by columns.
    base_model_tp_plan = {
        **{
            f"layers.*.self_attn.{name}": "colwise" for name in ("q_proj", "q_proj_hw", "k_proj", "k_proj_hw", "v_proj")
        },
        **{
            f"layers.*.self_attn.{part}_norm{axis}": "replicated_with_grad_allreduce"
            for part in "qk"
            for axis in ("", "_h", "_w")
        },
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }

    vocab_size: int = 151936
    """Rows of the token embedding."""
    hidden_size: int = 2048
    """Width of the residual stream."""
    intermediate_size: int = 6144
    """Inner width of the SwiGLU MLP."""
    num_hidden_layers: int = 40
    """Layers in all: the pre-Buffer's and the language model's."""
    extra_num_layers: int | None = None
    """Layers that belong to the pre-Buffer, the first ones; None where a checkpoint does not say."""
    num_attention_heads: int = 16
    """Query heads."""
    num_key_value_heads: int = 8
    """Key and value heads, each shared by `num_attention_heads / num_key_value_heads` query heads."""
    head_dim: int = 128
    """Width of a value head; query and key heads are twice as wide (T, then H and W)."""
    hidden_act: str = "silu"
    """Activation of the MLP's gate."""
    initializer_range: float = 0.02
    """Standard deviation of freshly drawn matrices."""
    rms_norm_eps: float = 1e-6
    """Added to the mean square in every RMSNorm."""
    rope_theta: float = 1_000_000.0
    """Rotary base of the T part (the language model's own)."""
    rope_theta_hw: float = 10_000.0
    """Rotary base of the H and W parts."""
    max_position_embeddings: int = 32768
    """Longest context, in steps of t."""
    max_position_embeddings_hw: int = 10000
    """Largest row or column index the model was made for."""
    tie_word_embeddings: bool = False
    """Whether the output head is the token embedding."""
    use_cache: bool = True
    """Whether a forward without labels returns its keys and values."""
    pad_token_id: int | None = None
    """Token that fills shorter rows of a batch."""
    bos_token_id: int | None = None
    """Unused by NEO; kept from Qwen3."""
    eos_token_id: int | list[int] | None = None
    """Tokens that end generation."""

    def __post_init__(self, **kwargs: Any) -> None:
        rope = kwargs.pop("rope_parameters", None) or kwargs.pop("rope_scaling", None)
        if rope and rope.get("rope_type", rope.get("type", "default")) != "default":
            raise ValueError(f"rope scaling {rope!r} is not supported: NEO uses plain rotary positions")
        if rope and "rope_theta" in rope:
            self.rope_theta = float(rope["rope_theta"])
        for field in ("attention_bias", "use_sliding_window"):
            if kwargs.get(field):
                raise ValueError(f"{field}=true is not supported: the layers of NEO have none")
        # Qwen3 fields that say nothing about a NEO, or that would contradict the depth.
        for field in ("layer_types", "max_window_layers", "sliding_window", "rope_scaling", "model_type"):
            kwargs.pop(field, None)
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        for field in (
            *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
            *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
        ):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} must be at least 1")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act={self.hidden_act!r} is not an activation that transformers knows")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads={self.num_attention_heads} must be a multiple of "
                f"num_key_value_heads={self.num_key_value_heads}"
            )
        if self.head_dim % 4:
            raise ValueError(f"head_dim={self.head_dim} must be a multiple of 4: H and W rotate half of it each")
        if self.extra_num_layers is not None and not 0 <= self.extra_num_layers <= self.num_hidden_layers:
            raise ValueError(
                f"extra_num_layers={self.extra_num_layers} must lie between 0 and "
                f"num_hidden_layers={self.num_hidden_layers}"
            )


@strict
class NeoVisionConfig(PreTrainedConfig):
    """The patch embedding and the picture sizes that the model was trained for."""

    model_type = "neo_vision"
    base_config_key = "vision_config"

    hidden_size: int = 1024
    """Channels between the two convolutions."""
    llm_hidden_size: int | list[int] = 2048
    """Width of the decoder, which the second convolution writes."""
    num_channels: int = 3
    """Colour channels."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    downsample_ratio: float | list[float] = 0.5
    """Tokens per patch along each side: 0.5 makes one token of 2 x 2 patches."""
    rope_theta_vision: float = 10_000.0
    """Rotary base of the patch positions."""
    max_position_embeddings_vision: int = 10000
    """Largest patch row or column the model was made for."""
    min_pixels: int = 65_536
    """Smaller pictures are scaled up to this area."""
    max_pixels: int = 4_194_304
    """Larger pictures are scaled down to this area."""

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.llm_hidden_size = int(_only_element(self.llm_hidden_size, "llm_hidden_size"))
        self.downsample_ratio = float(_only_element(self.downsample_ratio, "downsample_ratio"))
        if not 0 < self.downsample_ratio <= 1:
            raise ValueError(f"vision downsample_ratio={self.downsample_ratio} must lie above 0 and be 1 at the most")
        if self.hidden_size % 4:
            raise ValueError(f"vision hidden_size={self.hidden_size} must be a multiple of 4: x and y rotate half each")

    @property
    def merge_size(self) -> int:
        """Patches per token along each side."""
        return round(1 / self.downsample_ratio)  # type: ignore[operator]


@strict
class NeoConfig(PreTrainedConfig):
    """A whole NEO: `text_config`, `vision_config` and the ids of the tokens that stand for pictures.

    Published names are accepted as they are: `llm_config` for `text_config`, one-element lists in `vision_config`,
    a null `img_context_token_id`. The depth of the pre-Buffer is `text_config.extra_num_layers`.
    """

    model_type = "neo_chat"
    sub_configs_defaults = {"text_config": NeoTextConfig, "vision_config": NeoVisionConfig}
    keys_to_ignore_at_inference = ["past_key_values", "token_losses"]

    text_config: NeoTextConfig | dict[str, Any] | None = None
    """The decoder."""
    vision_config: NeoVisionConfig | dict[str, Any] | None = None
    """The patch embedding."""
    image_token_id: int = 151669
    """`<IMG_CONTEXT>`, the place of one image token."""
    image_start_token_id: int = 151670
    """`<img>`."""
    image_end_token_id: int = 151671
    """`</img>`."""
    tie_word_embeddings: bool = False
    """Whether the output head is the token embedding; the text part's own value where it gives one."""
    template: str = "neo1_0"
    """Name of the chat format in the released code."""
    downsample_ratio: float | list[float] = 0.5
    """Same as `vision_config.downsample_ratio`; the released code reads both."""

    def __post_init__(self, **kwargs: Any) -> None:
        published = kwargs.pop("llm_config", None)
        if published is not None:
            self.text_config = published
        token_id = kwargs.pop("img_context_token_id", None)
        if token_id is not None:
            self.image_token_id = token_id
        kwargs.pop("auto_map", None)  # the classes here are the implementation; nothing is fetched from a hub
        text = self.text_config
        if text is None or isinstance(text, dict):
            self.text_config = text = {"tie_word_embeddings": self.tie_word_embeddings} | (text or {})
        self.tie_word_embeddings = bool(
            text["tie_word_embeddings"] if isinstance(text, dict) else text.tie_word_embeddings
        )
        super().__post_init__(**kwargs)
        self.downsample_ratio = float(_only_element(self.downsample_ratio, "downsample_ratio"))
        if self.vision_config.llm_hidden_size != self.text_config.hidden_size:  # type: ignore[union-attr]
            raise ValueError(
                f"vision_config.llm_hidden_size={self.vision_config.llm_hidden_size} must equal "  # type: ignore[union-attr]
                f"the decoder's hidden_size={self.text_config.hidden_size}"  # type: ignore[union-attr]
            )

    def to_dict(self) -> dict[str, Any]:
        """The configuration under its published names."""
        result = super().to_dict()
        text = result.pop("text_config")
        result["architectures"] = ["NEOChatModel"]
        result["llm_config"] = {**text, **PUBLISHED_TEXT_FIELDS}
        result["llm_config"]["layer_types"] = ["full_attention"] * text["num_hidden_layers"]
        vision = result["vision_config"]
        vision["architectures"] = ["NEOVisionModel"]
        # The released code stores these two in one-element lists and indexes into them.
        vision["llm_hidden_size"] = [vision["llm_hidden_size"]]
        vision["downsample_ratio"] = [vision["downsample_ratio"]]
        return result


def _only_element(value: Any, field: str) -> Any:
    if not isinstance(value, list | tuple):
        return value
    if len(value) != 1:
        raise ValueError(f"vision_config.{field}={value!r} must be one number or a list of one")
    return value[0]


PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "text": {
            "vocab_size": 1024,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 5,
            "extra_num_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
        },
        "vision": {"hidden_size": 192, "llm_hidden_size": 192, "min_pixels": 9_216, "max_pixels": 65_536},
    },
    "2b": {
        "text": {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 40,
            "extra_num_layers": 12,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "tie_word_embeddings": True,
        },
        "vision": {"llm_hidden_size": 2048},
    },
    "9b": {
        "text": {
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 42,
            "extra_num_layers": 6,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
        },
        "vision": {"llm_hidden_size": 4096},
    },
}
"""Sizes of the published models (ARCHITECTURE: NEO-2B on Qwen3-1.7B, NEO-9B on Qwen3-8B) and of the small one here."""


def preset(name: str) -> NeoConfig:
    """The configuration of a known size: `"demo"`, `"2b"` or `"9b"`.

    Raises:
        ValueError: the name is not a preset.
    """
    if name.lower() not in PRESETS:
        raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    sizes = PRESETS[name.lower()]
    return NeoConfig(text_config=dict(sizes["text"]), vision_config=dict(sizes["vision"]))
