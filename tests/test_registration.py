"""After `import neo`, transformers' own doors open a published checkpoint, whenever they were imported."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

import neo
from neo.processing.tokenizer import train_tokenizer

SOURCE = Path(neo.__file__).parent.parent


@pytest.fixture(scope="module")
def checkpoint(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As published, with every quirk: auto_map, one-element lists, null id; a tokenizer, no processor."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copy(tiny_folder / "model.safetensors", folder)
    train_tokenizer(["a picture of a red circle and a blue square"] * 3, 300).save_pretrained(folder)
    config = json.loads((tiny_folder / "config.json").read_text())
    config["img_context_token_id"] = None
    config["auto_map"] = {
        "AutoConfig": "configuration_neo_chat.NEOChatConfig",
        "AutoModel": "modeling_neo_chat.NEOChatModel",
        "AutoModelForCausalLM": "modeling_neo_chat.NEOChatModel",
    }
    config["vision_config"] |= {"min_pixels": 64 * 64, "max_pixels": 128 * 128}
    assert config["vision_config"]["llm_hidden_size"] == [64]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_configuration(checkpoint: Path) -> None:
    assert type(AutoConfig.from_pretrained(checkpoint)) is neo.NeoConfig


@pytest.mark.parametrize("trust", [None, False, True])
def test_headless_model(checkpoint: Path, trust: bool | None) -> None:
    model = AutoModel.from_pretrained(checkpoint, trust_remote_code=trust)
    assert type(model) is neo.NeoModel


@pytest.mark.parametrize("name", ["AutoModelForImageTextToText", "AutoModelForMultimodalLM", "AutoModelForCausalLM"])
def test_models_with_a_head(checkpoint: Path, name: str) -> None:
    model = getattr(transformers, name).from_pretrained(checkpoint, dtype=torch.bfloat16)
    assert type(model) is neo.NeoForConditionalGeneration
    assert model.dtype == torch.bfloat16


def test_token_ids_come_from_the_tokenizer(checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    config = AutoModelForCausalLM.from_pretrained(checkpoint).config
    tokens = ["<IMG_CONTEXT>", "<img>", "</img>"]
    ids = [config.image_token_id, config.image_start_token_id, config.image_end_token_id]
    assert tokenizer.convert_tokens_to_ids(tokens) == ids


def test_sub_configurations() -> None:
    assert type(AutoConfig.for_model("neo_text", num_hidden_layers=3, extra_num_layers=1)) is neo.NeoTextConfig
    assert type(AutoConfig.for_model("neo_vision")) is neo.NeoVisionConfig


def test_model_from_a_configuration(small_config: Any) -> None:
    assert type(AutoModelForImageTextToText.from_config(small_config)) is neo.NeoForConditionalGeneration


def test_processor_without_files(checkpoint: Path) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert type(processor) is neo.NeoProcessor
    assert (processor.image_processor.min_pixels, processor.image_processor.max_pixels) == (4096, 16384)


def test_processor_round_trip(checkpoint: Path, tmp_path: Path) -> None:
    processor = AutoProcessor.from_pretrained(checkpoint)
    processor.save_pretrained(tmp_path)
    shutil.copy(checkpoint / "config.json", tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is neo.NeoProcessor
    assert again.image_processor.max_pixels == 16384
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is neo.NeoImageProcessor


def test_pipeline(checkpoint: Path) -> None:
    ask = pipeline("image-text-to-text", model=str(checkpoint))
    picture = Image.new("RGB", (80, 60), "red")
    parts = [{"type": "image", "image": picture}, {"type": "text", "text": "a picture"}]
    answer = ask(text=[{"role": "user", "content": parts}], max_new_tokens=3, return_full_text=False)
    assert isinstance(answer[0]["generated_text"], str)
    # The same through our own door, token by token.
    model, processor = ask.model, ask.processor
    encoded = processor.encode([{"role": "user", "content": parts}], add_generation_prompt=True)
    inputs = processor.collate([encoded])
    ids = model.generate(**inputs, max_new_tokens=3)[0, inputs["input_ids"].shape[1] :]
    assert processor.decode(ids, skip_special_tokens=True) == answer[0]["generated_text"]


ORDERS = (  # conftest.py itself begins with a module of neo
    "import neo; from transformers import AutoModel as A",
    "from transformers import AutoModel as A; import neo",
    "import neo; from transformers.modeling_layers import GradientCheckpointingLayer; "
    "from transformers.models.auto.modeling_auto import AutoModel as A",
)
IN_FRESH_PROCESSES = """
import os, sys, torch  # torch only once, it takes longest
for order in {orders!r}:
    if os.fork() == 0:
        exec(order)
        hooks = sum(type(finder).__module__ == "neo.registration" for finder in sys.meta_path)
        print(type(A.from_pretrained({folder!r})).__name__, hooks, flush=True)
        os._exit(0)
    os.wait()
"""


def run(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_any_order_of_imports(tiny_folder: Path) -> None:
    found = run(IN_FRESH_PROCESSES.format(orders=ORDERS, folder=str(tiny_folder)))
    assert found.splitlines() == ["NeoModel 0"] * len(ORDERS)


def test_importing_neo_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'PIL'} & {name.partition('.')[0] for name in sys.modules}"
    assert run(f"import sys, neo; print({heavy})") == "set()"
