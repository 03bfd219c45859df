"""NEO: one decoder that sees pixels and words alike. The file to read first.

Notable features:
- no vision encoder: two small convolutions turn 32 x 32 pixels into one token (`patch_embedding.py`);
- every head has three parts, T for order in time, H and W for rows and columns of a picture, each with its own
  projection, norm and rotary base (`positions.py`, `rope.py`);
- attention is bidirectional inside a picture and causal elsewhere (`masks.py`, `attention.py`);
- the first `pre_buffer_layers` layers, the pre-Buffer, are new and learn to see while the language model behind them
  stays frozen; afterwards all layers are one model.

Otherwise it is Qwen3: pre-norm, RMSNorm, grouped queries, SwiGLU, no biases.

Shapes: B batch, L tokens, H heads, D head_dim, C hidden size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from neo.model import checkpoint
from neo.model.attention import BACKENDS, Attend, attention_over
from neo.model.config import NeoConfig, NeoTextConfig
from neo.model.generation import NeoGenerationMixin
from neo.model.linear import Linear, products
from neo.model.loss import CHUNK_LOGITS, next_token_loss
from neo.model.masks import AttentionMask
from neo.model.patch_embedding import PatchConvolution, PatchEmbedding
from neo.model.positions import TEXT, documents_of, grid_hw, number_images, thw_positions
from neo.model.rope import Rotary, native_rotary, rotate_halves


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension, in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class HeadNorm(RMSNorm):
    """The weight of an RMSNorm over heads; `NativeAttention` normalises all heads of queries and keys at once."""

    def forward(self, heads: int) -> Tensor:  # type: ignore[override]
        """(heads, width): the same for each."""
        return self.weight.repeat(heads, 1)


def rms_normalized(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `RMSNorm`, with a weight of more dimensions; rounded to the dtype of `x` before it, as Qwen3 does."""
    return F.rms_norm(x, x.shape[-1:], None, eps) * weight.to(x.dtype)


class NativeAttention(nn.Module):
    """The native primitive: T, H and W side by side in every query and key."""

    def __init__(self, config: NeoTextConfig, layer_index: int) -> None:
        super().__init__()
        self.config = config
        self.layer_index = layer_index
        self.head_dim = D = config.head_dim
        C, heads, kv_heads = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
        self.q_proj = Linear(C, heads * D)
        self.k_proj = Linear(C, kv_heads * D)
        self.v_proj = Linear(C, kv_heads * D)
        self.q_proj_hw = Linear(C, heads * D)  # per head: first half H, second half W
        self.k_proj_hw = Linear(C, kv_heads * D)
        self.o_proj = Linear(heads * D, C)
        eps = config.rms_norm_eps
        self.q_norm, self.k_norm = HeadNorm(D, eps), HeadNorm(D, eps)
        self.q_norm_h, self.k_norm_h = HeadNorm(D // 2, eps), HeadNorm(D // 2, eps)
        self.q_norm_w, self.k_norm_w = HeadNorm(D // 2, eps), HeadNorm(D // 2, eps)

    def in_projections(self) -> tuple[nn.Module, ...]:
        """Those that take the layer's inputs."""
        return self.q_proj, self.k_proj, self.q_proj_hw, self.k_proj_hw, self.v_proj

    def forward(self, x_BLC: Tensor, rotary: Rotary, attend: Attend, cache: Cache | None) -> Tensor:
        q, k, q_hw, k_hw, v = products(x_BLC, self.in_projections())
        native = self._native(torch.cat([q, k], -1), torch.cat([q_hw, k_hw], -1), rotary).transpose(1, 2)
        heads = self.config.num_attention_heads
        query, key = native[:, :heads], native[:, heads:]
        value = v.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_index)
        return self.o_proj(attend(query, key, value).transpose(1, 2).flatten(-2))

    def _native(self, t: Tensor, hw: Tensor, rotary: Rotary) -> Tensor:
        """Normalise and rotate the parts of all heads, queries first: (B, L, heads, 2 * head_dim), [T | H | W] each."""
        weight_ND, weight_N2d = self._norm_weights()
        (cos_t, sin_t), (cos_hw, sin_hw) = rotary
        t = rms_normalized(t.unflatten(-1, weight_ND.shape), weight_ND, self.q_norm.eps)
        hw = rms_normalized(hw.unflatten(-1, weight_N2d.shape), weight_N2d, self.q_norm.eps)
        hw = torch.cat(rotate_halves(hw, cos_hw, sin_hw), dim=-1).flatten(-2)
        return torch.cat([*rotate_halves(t, cos_t, sin_t), hw], dim=-1)

    def _norm_weights(self) -> tuple[Tensor, Tensor]:
        """Of T and of H and W, for all heads, queries first: (heads, head_dim) and (heads, 2, head_dim / 2)."""
        H, K = self.config.num_attention_heads, self.config.num_key_value_heads
        t, h, w = (
            torch.cat([q_norm(H), k_norm(K)])
            for q_norm, k_norm in (
                (self.q_norm, self.k_norm),
                (self.q_norm_h, self.k_norm_h),
                (self.q_norm_w, self.k_norm_w),
            )
        )
        return t, torch.stack([h, w], dim=1)


class SwiGLU(nn.Module):
    """Gated MLP of Qwen3."""

    def __init__(self, config: NeoTextConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]

    def in_projections(self) -> tuple[nn.Module, ...]:
        """Those that take the layer's inputs."""
        return self.gate_proj, self.up_proj

    def forward(self, x_BLC: Tensor) -> Tensor:
        gate, up = products(x_BLC, self.in_projections())
        return self.down_proj(self.activation(gate) * up)


class NeoLayer(GradientCheckpointingLayer):
    """One native primitive: attention and MLP, each normalised before and added back."""

    def __init__(self, config: NeoTextConfig, layer_index: int) -> None:
        super().__init__()
        self.self_attn = NativeAttention(config, layer_index)
        self.mlp = SwiGLU(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x_BLC: Tensor, rotary: Rotary, attend: Attend, cache: Cache | None) -> Tensor:
        x_BLC = x_BLC + self.self_attn(self.input_layernorm(x_BLC), rotary, attend, cache)
        return x_BLC + self.mlp(self.post_attention_layernorm(x_BLC))


class NeoPreTrainedModel(PreTrainedModel):
    """What the three model classes share: initialisation, capabilities, loading and saving."""

    config_class = NeoConfig
    config: Any
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["NeoLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_flash_attn = False  # its interface has no room for the bidirectional pictures
    _can_record_outputs = {"hidden_states": NeoLayer}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, PatchConvolution):
            module.start_smooth()
        elif isinstance(module, nn.Linear | nn.Embedding | nn.Conv2d):
            nn.init.normal_(module.weight, std=self.config.get_text_config().initializer_range)
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)

    def set_attn_implementation(self, attn_implementation: str, **kwargs: Any) -> None:
        """Choose how attention is computed: `eager`, `sdpa` or `flex_attention`."""
        if attn_implementation not in BACKENDS:
            raise ValueError(
                f"unknown attn_implementation {attn_implementation!r}: choose one of {', '.join(BACKENDS)}"
            )
        self.config._attn_implementation = attn_implementation

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint in the published layout from a folder or a hub id; safetensors only.

        As transformers' `from_pretrained`, with a folder checked first: missing files, and tensors that are missing
        or of the wrong shape, are an error that names them rather than a warning and random weights. Token ids of
        pictures are taken from the folder's tokenizer unless given.

        Raises:
            ValueError: the folder does not hold a whole NEO checkpoint.
        """
        head = issubclass(cls, NeoForConditionalGeneration)
        kwargs = checkpoint.prepare_loading(pretrained_model_name_or_path, kwargs, head)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if kwargs.get("output_loading_info") else loaded
        checkpoint.adopt_token_ids(model.config, pretrained_model_name_or_path)
        return loaded


class NeoTextModel(NeoPreTrainedModel):
    """Embedding, layers and final norm; the pre-Buffer is the first `config.pre_buffer_layers` layers."""

    config_class = NeoTextConfig

    def __init__(self, config: NeoTextConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([NeoLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_init()

    def attention_over(self, mask: AttentionMask) -> Attend:
        """The attention of one forward under this mask, by the backend that the configuration names."""
        scale = self.config.head_dim**-0.5  # of T's width alone, as in the published model
        return attention_over(mask, scale, self.config._attn_implementation or "sdpa")

    def forward(
        self, inputs_embeds: Tensor, positions_3BL: Tensor, attend: Attend, cache: Cache | None = None
    ) -> Tensor:
        """(B, L, C) embeddings to (B, L, C) normalised hidden states."""
        config, x_BLC = self.config, inputs_embeds
        rotary = native_rotary(positions_3BL, config.head_dim, config.rope_theta, config.rope_theta_hw, x_BLC.dtype)
        for layer in self.layers:
            x_BLC = layer(x_BLC, rotary, attend, cache)
        return self.norm(x_BLC)


class NeoModel(NeoPreTrainedModel):
    """Pictures and words to hidden states."""

    _keys_to_ignore_on_load_unexpected = [r"lm_head"]

    def __init__(self, config: NeoConfig) -> None:
        super().__init__(config)
        self.vision_model = PatchEmbedding(config.vision_config)  # type: ignore[arg-type]
        self.language_model = NeoTextModel._from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.embed_tokens = value

    def token_grid(self, image_grid_hw: Tensor) -> Tensor:
        """Rows and columns of each picture in tokens, from those in patches: (images, 2)."""
        return image_grid_hw // self.vision_model.merge

    def get_image_features(self, pixel_values: Tensor, image_grid_hw: Tensor) -> Tensor:
        """One vector per image token, all pictures one after the other: (tokens, C)."""
        return self.vision_model(pixel_values, image_grid_hw)

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grid_hw: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        document_ids: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """See `NeoForConditionalGeneration.forward`."""
        grid = grid_hw(image_grid_hw, image_grid_thw)
        if input_ids is None:
            raise ValueError("input_ids are needed (also beside inputs_embeds): they tell where the pictures stand")
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config.get_text_config())
        past = int(past_key_values.get_seq_length()) if past_key_values is not None else 0

        token_grid = self.token_grid(grid) if pixel_values is not None else grid[:0]
        if past and pixel_values is None:
            image_ids = torch.full_like(input_ids, TEXT)  # even an <IMG_CONTEXT> that the model itself wrote is a word
        else:
            image_ids = number_images(input_ids, token_grid.prod(-1), self.config.image_token_id)
        if inputs_embeds is None:
            inputs_embeds = cast(Tensor, self.get_input_embeddings()(input_ids))
        # In training also those of no picture: sharded, every rank must use the same parameters in the same order.
        if pixel_values is not None and (token_grid.numel() or self.training):
            features = self.get_image_features(pixel_values, grid).to(inputs_embeds.dtype)
            inputs_embeds = inputs_embeds.masked_scatter((image_ids != TEXT).unsqueeze(-1), features)

        documents = documents_of(input_ids, attention_mask, document_ids, past)
        if position_ids is None:
            if past:
                raise ValueError(
                    "position_ids are needed when continuing a cache: a picture takes one step of t, so the cache's "
                    "length does not tell the next position; take them from get_positions on the whole sequence"
                )
            position_ids = thw_positions(image_ids, token_grid, documents)
        mask = AttentionMask(documents, F.pad(image_ids, (past, 0), value=TEXT), query_start=past)
        attend = self.language_model.attention_over(mask)
        hidden = self.language_model(inputs_embeds, position_ids, attend, past_key_values)
        return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=past_key_values if use_cache else None)


@dataclass
class NeoOutput(CausalLMOutputWithPast):
    """What `NeoForConditionalGeneration` gives."""

    token_losses: Tensor | None = None
    """(B, L) float32: the unweighted loss of each label, zero where there is none; without gradient."""


class NeoForConditionalGeneration(NeoPreTrainedModel, NeoGenerationMixin):
    """NEO with its language-model head: pictures and words in, next words out."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    accepts_loss_kwargs = True

    def __init__(self, config: NeoConfig) -> None:
        super().__init__(config)
        text = cast(NeoTextConfig, config.text_config)
        self.model = NeoModel(config)
        self.lm_head = Linear(text.hidden_size, text.vocab_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_positions(
        self,
        input_ids: Tensor,
        image_grid_hw: Tensor | None = None,
        attention_mask: Tensor | None = None,
        document_ids: Tensor | None = None,
    ) -> Tensor:
        """(3, B, L) positions (t, h, w) of a whole sequence; grids in patches, as from the processor."""
        token_grid = self.model.token_grid(grid_hw(image_grid_hw, None))
        image_ids = number_images(input_ids, token_grid.prod(-1), self.config.image_token_id)
        return thw_positions(image_ids, token_grid, documents_of(input_ids, attention_mask, document_ids, 0))

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grid_hw: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        loss_weights: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_logits: bool | None = None,
        **kwargs: Any,
    ) -> NeoOutput:
        """Predict the next token at every place.

        Args:
            input_ids: (B, L) token ids, one `<IMG_CONTEXT>` per image token.
            attention_mask: (B, L), with a cache (B, cached + L): 0 marks padding.
            position_ids: (3, B, L) t, h, w; computed from ids and grids unless given.
            past_key_values: cache of earlier tokens; the next ones then need `position_ids`.
            inputs_embeds: (B, L, C) in place of the word embeddings.
            pixel_values: (patches of all pictures, 768).
            image_grid_hw: (pictures, 2) rows and columns in patches, pictures in the order of their tokens.
            image_grid_thw: the same as (pictures, 3) with a leading 1, the name other models use.
            document_ids: (B, L) for packed rows: which document a token belongs to, -1 for none.
            labels: (B, L) token ids aligned with `input_ids`, -100 for no loss; the shift happens inside.
            loss_weights: (B, L) weight of each label.
            use_cache: return the cache; by default outside training.
            logits_to_keep: compute logits of the last so many places only; 0 means all.
            return_logits: by default always but in training with labels, where logits of a whole batch would be the
                largest tensor by far and nobody reads them.
            kwargs: `output_hidden_states=True` returns the embeddings and what every layer gave, the last normalised.

        Returns:
            `loss` and `token_losses` (with labels), `logits` (B, L, V), `past_key_values`, `hidden_states`.

        Raises:
            ValueError: image tokens and picture grids do not match, or positions are missing beside a cache.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            image_grid_hw=image_grid_hw,
            image_grid_thw=image_grid_thw,
            document_ids=document_ids,
            use_cache=use_cache if use_cache is not None else not self.training and labels is None,
            return_dict=True,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        loss = token_losses = logits = None
        if labels is not None:
            normalizer = kwargs.get("num_items_in_batch")
            chunk = max(1, CHUNK_LOGITS // self.config.text_config.vocab_size)
            loss, token_losses = next_token_loss(hidden, labels, self.lm_head, loss_weights, normalizer, chunk)
        if return_logits or (return_logits is None and not (self.training and labels is not None)):
            logits = self.lm_head(hidden[:, -logits_to_keep:])
        return NeoOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            token_losses=token_losses,
        )


checkpoint.register_published_names()
