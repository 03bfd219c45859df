"""LoRA adapters (Hu et al. 2021) by peft: small trained matrices beside frozen ones, in peft's own files.

They are put into the model in place, which so keeps its class and its tree; only the projections become peft's modules.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neo.model.names import ADAPTER_CONFIG, read_json
from neo.model.neo import NeoForConditionalGeneration

if TYPE_CHECKING:
    from peft import PeftConfig

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the names of the tree."""
PROJECTIONS = (
    *("q_proj", "k_proj", "v_proj", "q_proj_hw", "k_proj_hw", "o_proj"),
    *("gate_proj", "up_proj", "down_proj"),
)
"""Every matrix of a layer: what adapters go beside unless told otherwise."""


def check_peft() -> None:
    """Raise a ValueError that says how to install peft where it is missing."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise ValueError("adapters need peft: install the extra with pip install 'neo-vlm[lora]'") from error


def add_adapter(model: NeoForConditionalGeneration, config: "PeftConfig") -> list[nn.Parameter]:
    """Put fresh adapters beside the projections that the configuration names; everything else is frozen.

    Returns:
        The adapters' parameters.

    Raises:
        ValueError: the model has no such projection.
    """
    from peft import inject_adapter_in_model

    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise ValueError(f"the adapter does not fit the model: {error}") from error
    model._hf_peft_config_loaded = True  # so that transformers knows
    return [parameter for name, parameter in model.named_parameters() if parameter.requires_grad]


def save_adapter(model: NeoForConditionalGeneration, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write the adapters of a model, without the model, in peft's files.

    Args:
        model: what they are in.
        folder: where to.
        weights: the model's, where it is spread over processes and does not hold them whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(model, weights)
    tensors = {PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = model.peft_config["default"]
    for name in ("target_modules", "exclude_modules"):  # sets, whose order would differ from run to run
        if isinstance(value := getattr(config, name, None), set):
            setattr(config, name, sorted(value))
    config.save_pretrained(str(folder))


def load_adapter(model: NeoForConditionalGeneration, folder: str | Path) -> NeoForConditionalGeneration:
    """Put a saved adapter into a model, frozen; each of its tensors must find its place.

    Raises:
        ValueError: no whole adapter in the folder, one of another model, or peft is missing.
    """
    check_peft()
    from peft import PeftConfig, set_peft_model_state_dict

    folder = Path(folder).expanduser()
    if not is_adapter(folder):
        raise ValueError(f"{folder}: no adapter here; its folder holds {ADAPTER_CONFIG} and {WEIGHTS}")
    try:
        config = PeftConfig.from_pretrained(str(folder))
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ValueError(f"{folder}: not a whole adapter ({' '.join(str(error).split())})") from error
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    config.inference_mode = True
    add_adapter(model, config)
    wanted = {name: tensor.shape for name, tensor in _tensors(model).items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if wrong := sorted(name for name in wanted | found if wanted.get(name) != found.get(name)):
        shapes = [list(shape) if (shape := shapes.get(wrong[0])) else "no such tensor" for shapes in (found, wanted)]
        raise ValueError(
            f"{folder}: the adapter does not fit the model: {wrong[0]} is {shapes[0]} in it, but the model asks for "
            f"{shapes[1]}; it was trained on {base_of(folder)}"
        )
    set_peft_model_state_dict(model, tensors)
    return model.requires_grad_(False)


def merge_adapter(model: NeoForConditionalGeneration) -> NeoForConditionalGeneration:
    """Add the adapters to the matrices they stand beside, and take peft's modules out again."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            model.set_submodule(name, module.get_base_layer())
    del model.peft_config
    model._hf_peft_config_loaded = False
    return model


def _tensors(model: NeoForConditionalGeneration, weights: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The adapters' tensors by their names in the tree."""
    from peft import get_peft_model_state_dict

    # Asked about embeddings, peft would look for the base model on the hub.
    state = None if weights is None else dict(weights)
    return get_peft_model_state_dict(model, state, save_embedding_layers=False)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter's files."""
    return (folder / ADAPTER_CONFIG).is_file() and (folder / WEIGHTS).is_file()


def base_of(folder: Path) -> str:
    """The model that an adapter was trained on, as its configuration names it."""
    return str(read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path"))
