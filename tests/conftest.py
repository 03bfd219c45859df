"""What tests share: the reference test vectors, a tiny model and inputs composed of words and pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import ImageFile

from neo.cli import main
from neo.model.config import NeoConfig
from neo.model.neo import NeoForConditionalGeneration

Part = int | tuple[int, int]
"""So many words, or a picture of so many rows and columns of patches."""


@pytest.fixture(autouse=True)
def cut_off_pictures_are_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Pillow has it; importing lmms-eval changes it for the whole process."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference test vectors; see its README."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def tiny_folder(golden: Path) -> Path:
    """A whole published checkpoint of 4 layers: 2 pre-Buffer, 2 language model."""
    return golden / "tiny-a"


@pytest.fixture(scope="session")
def token_ids() -> dict[str, int]:
    """Ids of the picture tokens of the tiny checkpoint, which has no tokenizer to read them from."""
    return {"image_token_id": 509, "image_start_token_id": 510, "image_end_token_id": 511}


@pytest.fixture
def tiny(tiny_folder: Path, token_ids: dict[str, int]) -> NeoForConditionalGeneration:
    """The tiny checkpoint in float32, ready for inference."""
    return NeoForConditionalGeneration.from_pretrained(tiny_folder, **token_ids).eval()


@pytest.fixture
def small_config(token_ids: dict[str, int]) -> NeoConfig:
    """Two layers, fast to build with random weights."""
    text = {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "extra_num_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    vision = {"hidden_size": 24, "llm_hidden_size": 32}
    return NeoConfig(text_config=text, vision_config=vision, **token_ids)


@pytest.fixture(scope="session")
def compose(token_ids: dict[str, int]) -> Callable[..., dict[str, torch.Tensor]]:
    """`compose(row, ..., seed=0)`: model inputs; each row lists its parts, shorter rows are padded left."""

    def make(*rows: Sequence[Part], seed: int = 0) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        sequences, grids = [], []
        for row in rows:
            ids: list[int] = []
            for part in row:
                if isinstance(part, int):
                    ids += torch.randint(1, 500, (part,), generator=generator).tolist()
                    continue
                grids.append(part)
                count = part[0] * part[1] // 4
                ids += [
                    token_ids["image_start_token_id"],
                    *[token_ids["image_token_id"]] * count,
                    token_ids["image_end_token_id"],
                ]
            sequences.append(torch.tensor(ids))
        length = max(len(ids) for ids in sequences)
        input_ids = torch.zeros(len(rows), length, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for row_index, ids in enumerate(sequences):
            input_ids[row_index, length - len(ids) :] = ids
            attention_mask[row_index, length - len(ids) :] = 1
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if grids:
            inputs["image_grid_hw"] = torch.tensor(grids)
            patches = int(inputs["image_grid_hw"].prod(-1).sum())
            inputs["pixel_values"] = torch.randn(patches, 768, generator=generator)
        return inputs

    return make


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that works; gives its stdout."""

    def run(*words: Any) -> str:
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that is refused; gives its one sentence."""

    def refuse(*words: Any) -> str:
        assert main([str(word) for word in words]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("neo: ")
        assert captured.err.count("\n") == 1
        assert captured.err.endswith("\n")
        return captured.err

    return refuse
