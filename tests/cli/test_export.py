from collections.abc import Callable
from pathlib import Path

import neo


def test_export_merges_an_adapter(run: Callable, tiny_checkpoint: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    question, short = "What color is the circle?", ["--max-new-tokens", 12, "--device", "cpu"]
    adapted = run("ask", question, "--model", tiny_checkpoint, "--adapter", tiny_adapter, *short)
    assert adapted != run("ask", question, "--model", tiny_checkpoint, *short)
    words = ["--model", tiny_checkpoint, "--adapter", tiny_adapter, "--output", tmp_path / "merged"]
    folder = run("export", *words).strip()
    assert folder == str(tmp_path / "merged")
    assert run("ask", question, "--model", folder, *short) == adapted
    run("export", "--model", folder, "--dtype", "bf16", "--output", tmp_path / "half")
    assert str(neo.load_model(tmp_path / "half").model.dtype) == "torch.bfloat16"


def test_export_refuses(refuse: Callable, tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert "there is something here already" in refuse(
        "export", "--model", tiny_checkpoint, "--output", tiny_checkpoint
    )
    assert "did you mean neo-demo?" in refuse("export", "--model", "neo-dem", "--output", "x")
    words = ["--model", tiny_checkpoint, "--output", tmp_path / "new"]
    assert "no adapter here" in refuse("export", *words, "--adapter", tmp_path)
    assert "dtype='int4' must be one of" in refuse("export", *words, "--dtype", "int4")
    assert "neo export needs --output" in refuse("export", "--model", tiny_checkpoint)
