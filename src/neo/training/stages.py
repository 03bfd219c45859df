"""Which parts of a NEO each stage trains (ARCHITECTURE: training, three stages).

Parts are chosen by module; together they are the whole model, each parameter in exactly one part.
"""

import logging

from torch import nn

from neo.model.neo import NeoForConditionalGeneration, NeoLayer

logger = logging.getLogger(__name__)

PATCH = "patch embedding"
TOKENS = "token embedding"
PRE_BUFFER = "pre-Buffer layers"
LLM_HW = "LLM layers, h/w parts"
LLM_TEXT = "LLM layers, text parts"
NORM = "final norm"
HEAD = "output head"

EVERYTHING = frozenset({PATCH, TOKENS, PRE_BUFFER, LLM_HW, LLM_TEXT, NORM, HEAD})
TRAINED: dict[str, frozenset[str]] = {
    "llm": frozenset({TOKENS, LLM_TEXT, NORM, HEAD}),
    "pt": frozenset({PATCH, PRE_BUFFER, LLM_HW}),
    "mt": EVERYTHING,
    "sft": EVERYTHING,
}
"""Parts that each stage trains. In `llm` the model is a plain Qwen3: no pre-Buffer, its h/w keys zero."""

Parts = dict[str, list[nn.Parameter]]


def parts(model: NeoForConditionalGeneration) -> Parts:
    """The parameters of a model by part; a head tied to the token embedding counts there.

    Raises:
        ValueError: the configuration does not say how many layers are the pre-Buffer's.
    """
    depth = model.config.text_config.pre_buffer_layers
    if depth is None:
        raise ValueError(
            "the model's configuration does not say how many of its layers are the pre-Buffer: set "
            "extra_num_layers in the llm_config of its config.json"
        )
    decoder = model.model.language_model
    pre_buffer, llm = list(decoder.layers[:depth]), list(decoder.layers[depth:])
    result = {
        PATCH: _parameters(model.model.vision_model),
        TOKENS: _parameters(decoder.embed_tokens),
        PRE_BUFFER: _parameters(*pre_buffer),
        LLM_HW: _parameters(*(module for layer in llm for module in _hw_modules(layer))),
        LLM_TEXT: _parameters(*(module for layer in llm for module in _text_modules(layer))),
        NORM: _parameters(decoder.norm),
        HEAD: [] if model.lm_head.weight is decoder.embed_tokens.weight else _parameters(model.lm_head),
    }
    chosen = [id(parameter) for parameters in result.values() for parameter in parameters]
    assert sorted(chosen) == sorted(id(parameter) for parameter in model.parameters()), (
        "parts must cover the model once"
    )
    return result


def choose_trained(model: NeoForConditionalGeneration, stage: str) -> Parts:
    """Freeze what the stage does not train, and log the choice as a table.

    Returns:
        The parameters of the trained parts.

    Raises:
        ValueError: the model does not suit the stage.
    """
    if stage not in TRAINED:
        raise ValueError(f"unknown stage {stage!r}: choose one of {', '.join(TRAINED)}")
    by_part = parts(model)
    if stage == "llm":
        _check_language_model(model)
    elif stage == "pt" and not by_part[PRE_BUFFER]:
        raise ValueError("stage pt trains the pre-Buffer but this model has none: start with model.from_llm")
    for part, parameters in by_part.items():
        for parameter in parameters:
            parameter.requires_grad_(part in TRAINED[stage])
    trained = {part: parameters for part, parameters in by_part.items() if part in TRAINED[stage]}
    expected = {id(parameter) for parameters in trained.values() for parameter in parameters}
    assert expected == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    logger.info("stage %s trains:\n%s", stage, table(by_part))
    return trained


def table(by_part: Parts) -> str:
    """Every part with its number of parameters, its share, and whether it is trained."""
    counts = {part: sum(p.numel() for p in parameters) for part, parameters in by_part.items() if parameters}
    trained = {part: counts[part] if by_part[part][0].requires_grad else 0 for part in counts}
    lines = [f"{'part':<24}{'parameters':>14}{'share':>9}  trained"]
    for part, count in counts.items():
        share = count / sum(counts.values())
        lines.append(f"{part:<24}{count:>14,}{share:>9.1%}  {'yes' if trained[part] else 'no'}")
    share = sum(trained.values()) / sum(counts.values())
    lines.append(f"{'all':<24}{sum(counts.values()):>14,}{1:>9.1%}  {sum(trained.values()):,} ({share:.1%})")
    return "\n".join(lines)


def _hw_modules(layer: NeoLayer) -> list[nn.Module]:
    attention = layer.self_attn
    norms = [attention.q_norm_h, attention.q_norm_w, attention.k_norm_h, attention.k_norm_w]
    return [attention.q_proj_hw, attention.k_proj_hw, *norms]


def _text_modules(layer: NeoLayer) -> list[nn.Module]:
    attention = layer.self_attn
    projections = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    norms = [attention.q_norm, attention.k_norm, layer.input_layernorm, layer.post_attention_layernorm]
    return [*projections, *norms, layer.mlp]


def _parameters(*modules: nn.Module) -> list[nn.Parameter]:
    return [parameter for module in modules for parameter in module.parameters()]


def _check_language_model(model: NeoForConditionalGeneration) -> None:
    if model.config.text_config.pre_buffer_layers:
        raise ValueError(
            f"stage llm trains a language model without pre-Buffer, but this one has "
            f"{model.config.text_config.pre_buffer_layers} of its layers"
        )
    keys = [layer.self_attn.k_proj_hw.weight for layer in model.model.language_model.layers]
    if any(weight.any() for weight in keys if not weight.is_meta):  # on the meta device values come later
        raise ValueError("stage llm trains a plain language model, but this one has keys for rows and columns already")
