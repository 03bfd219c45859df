"""Growing from a language model: what is kept, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from neo.model.from_llm import from_llm
from neo.model.neo import NeoForConditionalGeneration


@pytest.fixture
def qwen3(golden: Path, tmp_path: Path) -> Path:
    shutil.copytree(golden / "from_qwen3_a" / "qwen3", tmp_path / "qwen3")
    return tmp_path / "qwen3"


def edit_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_seed_alone_decides_the_fresh_layers(qwen3: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same, other = from_llm(qwen3, 1), from_llm(qwen3, 1), from_llm(qwen3, 1, seed=1)
    assert torch.get_rng_state().equal(before)
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    assert one.state_dict()[name].equal(same.state_dict()[name])
    assert not one.state_dict()[name].equal(other.state_dict()[name])


def test_a_grown_model_saves_and_loads(qwen3: Path, tmp_path: Path) -> None:
    model = from_llm(qwen3, 2, vision={"hidden_size": 32, "max_pixels": 65536}, image_token_id=17)
    model.save_pretrained(tmp_path / "neo")
    again = NeoForConditionalGeneration.from_pretrained(tmp_path / "neo")
    assert again.config.text_config.pre_buffer_layers == 2
    assert (again.config.image_token_id, again.config.vision_config.max_pixels) == (17, 65536)
    assert all(value.equal(again.state_dict()[name]) for name, value in model.state_dict().items())


def test_dtype_is_the_language_models_unless_given(qwen3: Path) -> None:
    assert from_llm(qwen3, 1).dtype == torch.float32
    assert from_llm(qwen3, 1, dtype=torch.bfloat16).dtype == torch.bfloat16
    edit_config(qwen3, dtype="bfloat16")
    assert from_llm(qwen3, 1).dtype == torch.bfloat16


def test_tied_embeddings(qwen3: Path) -> None:
    edit_config(qwen3, tie_word_embeddings=True)
    edit_weights(qwen3, lambda tensors: tensors.pop("lm_head.weight", None))
    model = from_llm(qwen3, 1)
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_growing_from_a_neo_without_pre_buffer(qwen3: Path, tmp_path: Path) -> None:
    from_llm(qwen3, 0).save_pretrained(tmp_path / "llm")
    direct, through = from_llm(qwen3, 2).state_dict(), from_llm(tmp_path / "llm", 2).state_dict()
    assert all(value.equal(through[name]) for name, value in direct.items())
    from_llm(qwen3, 2).save_pretrained(tmp_path / "neo")
    with pytest.raises(ValueError, match="already has a pre-Buffer of 2 layers"):
        from_llm(tmp_path / "neo", 2)


def no_config(folder: Path) -> str:
    (folder / "config.json").unlink()
    return "no config.json here, so this is not a language model's folder"


def another_model(folder: Path) -> str:
    edit_config(folder, model_type="llama")
    return "model_type is 'llama', but a NEO grows from one of qwen3, neo_chat"


def lost_tensor(folder: Path) -> str:
    edit_weights(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    return "the weights lack tensor model.layers.1.mlp.up_proj.weight, which"


def strange_tensor(folder: Path) -> str:
    edit_weights(folder, lambda tensors: tensors.update({"model.layers.0.experts.weight": torch.ones(1)}))
    return "tensor model.layers.0.experts.weight has no place in a NEO"


def misshapen(folder: Path) -> str:
    edit_weights(folder, lambda tensors: tensors.update({"model.norm.weight": torch.ones(3)}))
    return r"tensor model.norm.weight has shape \[3\] but config.json asks for \[64\]"


def truncated(folder: Path) -> str:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    return "model.safetensors: not a whole safetensors file"


def no_weights(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    return "no weights here"


@pytest.mark.parametrize(
    "damage", [no_config, another_model, lost_tensor, strange_tensor, misshapen, truncated, no_weights]
)
def test_a_broken_language_model_is_named(qwen3: Path, damage: Callable[[Path], str]) -> None:
    message = damage(qwen3)
    with pytest.raises(ValueError, match=message) as caught:
        from_llm(qwen3, 1)
    assert str(qwen3) in str(caught.value)


def test_negative_depth() -> None:
    with pytest.raises(ValueError, match="pre_buffer_layers=-1 must be 0 or more"):
        from_llm("anywhere", -1)
