"""What a run starts from, where other tests do not show it: the picture sizes of a model that is gone on from."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers.utils.logging import enable_progress_bar, is_progress_bar_enabled

from neo.training.checkpoint import save_model
from neo.training.config import ModelConfig
from neo.training.start import load, start

NO_STREAM: list[None] = []
"""A model that is loaded needs no text to make a tokenizer from."""


def test_picture_sizes_can_change_between_stages(llm: Path, tmp_path: Path) -> None:
    sizes = {"min_pixels": 16_384, "max_pixels": 65_536}
    model, processor = start(ModelConfig(path=str(llm), vision=sizes), "sft", NO_STREAM, 0)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model, processor = load(tmp_path)
    assert model.config.vision_config.min_pixels == 16_384
    assert model.config.vision_config.max_pixels == 65_536
    for side, tokens in ((32, 16), (1000, 64)):
        encoded = processor.encode([{"role": "user", "content": "", "image": [Image.new("RGB", (side, side))]}])
        assert torch.equal(encoded.image_grid_hw.prod(-1), torch.tensor([4 * tokens]))


def test_no_bar_of_a_library_is_shown(llm: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    enable_progress_bar()
    save_model(tmp_path, *load(llm))
    assert capfd.readouterr().err == ""
    assert is_progress_bar_enabled()


def test_one_of_them_alone_must_fit_the_other(llm: Path) -> None:
    _, before = load(llm)
    most = before.image_processor.max_pixels
    with pytest.raises(ValueError, match=f"min_pixels={most + 1} .* not above max_pixels={most}"):
        start(ModelConfig(path=str(llm), vision={"min_pixels": most + 1}), "sft", NO_STREAM, 0)


def test_other_sizes_stay() -> None:
    with pytest.raises(ValueError, match="only min_pixels and max_pixels"):
        ModelConfig(path="some/model", vision={"hidden_size": 8})


def test_a_checkpoint_on_the_way_becomes_a_model(pt: Path, tmp_path: Path, run: Callable, refuse: Callable) -> None:
    folder = max((pt / "checkpoints").iterdir())
    words = ["export", "--model", folder, "--output", tmp_path / "model"]
    assert "neo export --model" in refuse("ask", "?", "--model", folder)
    assert "make a model of it first" in refuse(*words, "--dtype", "bf16")
    assert run(*words).strip() == str(tmp_path / "model")
    (made, _), (expected, _) = load(tmp_path / "model"), load(pt)  # the last checkpoint is the finished model
    for name, weight in expected.state_dict().items():
        assert torch.equal(made.state_dict()[name], weight), name
    assert "there is something here already" in refuse(*words)
