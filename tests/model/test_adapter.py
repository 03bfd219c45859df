import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file

from neo.model import adapter
from neo.model.config import NeoConfig
from neo.model.names import ADAPTER_CONFIG
from neo.model.neo import NeoForConditionalGeneration


@pytest.fixture
def make(small_config: NeoConfig) -> Callable[[], NeoForConditionalGeneration]:
    def make() -> NeoForConditionalGeneration:
        torch.manual_seed(0)
        return NeoForConditionalGeneration(small_config).eval()

    return make


@pytest.fixture
def adapted(make: Callable) -> NeoForConditionalGeneration:
    """A model with adapters that change its answers."""
    model = make()
    config = LoraConfig(r=4, target_modules=list(adapter.PROJECTIONS), task_type="CAUSAL_LM")
    config.base_model_name_or_path = "someone/base"
    for parameter in adapter.add_adapter(model, config):
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def saved(adapted: NeoForConditionalGeneration, tmp_path: Path) -> Path:
    adapter.save_adapter(adapted, tmp_path / "adapter")
    return tmp_path / "adapter"


def logits(model: NeoForConditionalGeneration, compose: Callable) -> torch.Tensor:
    with torch.no_grad():
        return model(**compose([5, (4, 4), 7])).logits


def test_only_the_adapters_are_trained(adapted: NeoForConditionalGeneration) -> None:
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    assert len(trained) == 2 * 2 * len(adapter.PROJECTIONS)  # A and B, two layers
    assert isinstance(adapted, NeoForConditionalGeneration)


def test_fresh_adapters_change_nothing(make: Callable, compose: Callable) -> None:
    model = make()
    before = logits(model, compose)
    adapter.add_adapter(model, LoraConfig(r=4, target_modules=list(adapter.PROJECTIONS)))
    assert torch.equal(logits(model, compose), before)


def test_saved_loaded_and_merged_alike(make: Callable, adapted, saved: Path, compose: Callable) -> None:
    expected = logits(adapted, compose)
    assert not torch.allclose(expected, logits(make(), compose), atol=0.1)
    loaded = adapter.load_adapter(make(), saved)
    assert torch.equal(logits(loaded, compose), expected)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    merged = adapter.merge_adapter(loaded)
    assert torch.allclose(logits(merged, compose), expected, atol=1e-5)  # measured: 7e-7
    assert merged.state_dict().keys() == make().state_dict().keys()


def test_peft_itself_reads_the_files(make: Callable, adapted, saved: Path, compose: Callable) -> None:
    theirs = PeftModel.from_pretrained(make(), str(saved))
    assert torch.equal(logits(theirs, compose), logits(adapted, compose))
    config = json.loads((saved / ADAPTER_CONFIG).read_text())
    assert config["base_model_name_or_path"] == "someone/base"
    assert adapter.base_of(saved) == "someone/base"
    assert {path.name for path in saved.iterdir()} == {ADAPTER_CONFIG, adapter.WEIGHTS}


def test_saving_twice_gives_the_same_bytes(adapted, saved: Path, tmp_path: Path) -> None:
    adapter.save_adapter(adapted, tmp_path / "again")
    for name in (ADAPTER_CONFIG, adapter.WEIGHTS):
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_folders_that_hold_no_adapter(make: Callable, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"/none: no adapter here; its folder holds adapter_config\.json"):
        adapter.load_adapter(make(), "/none")
    broken = shutil.copytree(saved, tmp_path / "broken")
    (broken / adapter.WEIGHTS).write_bytes(b"12345678 nothing")
    with pytest.raises(ValueError, match="broken: not a whole adapter"):
        adapter.load_adapter(make(), broken)
    (broken / ADAPTER_CONFIG).write_text("{")
    with pytest.raises(ValueError, match="broken: not a whole adapter"):
        adapter.load_adapter(make(), broken)


def test_an_adapter_of_another_model(saved: Path, small_config: NeoConfig) -> None:
    sizes = small_config.text_config.to_dict()
    wider = NeoConfig(text_config=sizes | {"intermediate_size": 64}, vision_config=small_config.vision_config)
    with pytest.raises(ValueError, match=r"down_proj.lora_A.weight is \[4, 48\] in it, .*\[4, 64\]; .*someone/base"):
        adapter.load_adapter(NeoForConditionalGeneration(wider), saved)
    deeper = NeoConfig(text_config=sizes | {"num_hidden_layers": 3}, vision_config=small_config.vision_config)
    with pytest.raises(ValueError, match=r"layers.2.\S+ is no such tensor in it"):
        adapter.load_adapter(NeoForConditionalGeneration(deeper), saved)


def test_projections_that_are_not_there(make: Callable) -> None:
    with pytest.raises(ValueError, match=r"does not fit the model: .*no_proj"):
        adapter.add_adapter(make(), LoraConfig(target_modules=["no_proj"]))


def test_without_peft(make: Callable, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ValueError, match=r"adapters need peft: .*neo-vlm\[lora\]"):
        adapter.load_adapter(make(), saved)


def test_tensors_are_named_as_peft_names_them(saved: Path) -> None:
    names = load_file(saved / adapter.WEIGHTS)
    assert "base_model.model.model.language_model.layers.0.self_attn.q_proj_hw.lora_A.weight" in names
