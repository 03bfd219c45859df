"""`neo eval --benchmark` and `neo eval --table`: what they print, what they write, and how they refuse."""

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from neo.cli import main
from neo.evaluation.table import read


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of lmms-eval's tasks with data made here."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "evaluation")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    return importlib.import_module("small_tasks").make_tasks(folder)


def test_scores_into_a_folder_and_a_table(
    run: Callable[..., str], tiny_checkpoint: Path, tasks: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    words = ["--harness", "lmms-eval", "--model", tiny_checkpoint, "--device", "cpu", "--tasks", tasks]
    pixels = ["--min-pixels", 4096, "--max-pixels", 65536]
    said = run("eval", "--benchmark", "DocVQA, chartqa", *words, *pixels, "--limit", 1, "--output", results)
    # Random weights are wrong, so their scores are known.
    first, second = said.splitlines()
    assert first == "docvqa_val: 0.0  (anls 0; 1 questions)"
    assert re.match(r"chartqa: 0\.0  \(relaxed_overall 0, .*; 1 questions\)$", second)

    docvqa, chartqa = sorted(read(results), key=lambda one: one.task, reverse=True)
    assert (docvqa.model, docvqa.harness, docvqa.task) == (str(tiny_checkpoint), "lmms-eval", "docvqa_val")
    assert (docvqa.scores, docvqa.questions, docvqa.limit) == ({"anls": 0}, 1, 1)
    assert docvqa.settings is not None
    assert docvqa.settings["prompts"] == "published"
    assert docvqa.settings["pixels"]["docvqa_val"] == [4096, 65536]
    assert chartqa.scores["relaxed_overall"] == 0
    for file in results.rglob("benchmark.json"):
        assert json.loads(file.read_text())["score"] == 0

    table = run("eval", "--table", results)
    assert f"| **{tiny_checkpoint}**, measured by lmms-eval |" in table
    assert "| NEO-2B-SFT (Qwen3-1.7B, native) | 48.6 |" in table


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--benchmark", "DocVQA"], "--benchmark needs --output, the folder of results"),
        (["--benchmark", " , ", "--output", "out"], "--benchmark names no benchmark"),
        (["--benchmark", "DocVQA", "--output", "out", "--limit", "0"], "--limit 0 must be at least 1"),
        (["--benchmark", "DocVQA", "--output", "out", "--limit", "few"], "--limit must be a whole number, not 'few'"),
        (["--benchmark", "DocVQA", "--output", "out", "--model", "hf:a/b"], "--benchmark asks NEOs; lmms-eval has"),
        (
            ["--benchmark", "DocVQA", "--output", "out", "--harness", "lmms_eval"],
            "--harness 'lmms_eval' must be lmms-eval or vlmevalkit; did you mean lmms-eval?",
        ),
        (
            ["--benchmark", "DocVQA", "--output", "out", "--harness", "vlmevalkit", "--tasks", "mine"],
            "--tasks is for --harness lmms-eval",
        ),
        (["--benchmark", "DocVQA", "--output", "out", "--tasks", "none"], "--tasks none: there is no such folder"),
        (["--benchmark", "DocVQA", "--output", "out", "--prompts", "mine"], "prompts='mine' must be published or"),
        (["--benchmark", "DocVQA", "--output", "out", "--model", "none/such"], "none/such"),
        (["--benchmark", "DocVQA", "--output", "out", "--min-pixels", "0"], "min_pixels=0 must be a whole number"),
        (
            ["--benchmark", "DocVQA", "--output", "out", "--max-pixels", "1024"],
            "min_pixels=1310720 is above max_pixels=1024",
        ),
        (["--table", "none"], "none: no results here; neo eval --benchmark ... --output none writes some"),
    ],
)
def test_what_is_refused(
    refuse: Callable[..., str],
    more: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in refuse("eval", "--device", "cpu", *more)


def test_a_damaged_result_is_named(refuse: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "benchmark.json").write_text("{")
    assert f"{tmp_path / 'benchmark.json'}: this is not a result of neo eval" in refuse("eval", "--table", tmp_path)


def test_an_unknown_task_is_named(refuse: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "docvqa_mine.yaml").write_text("task: docvqa_mine\ndataset_path: parquet\n")
    words = ["--benchmark", "docvqa_mime", "--tasks", tmp_path, "--output", tmp_path / "out", "--device", "cpu"]
    sentence = "lmms-eval has no task 'docvqa_mime'; did you mean docvqa_mine?"
    assert sentence in refuse("eval", *words)


def test_data_that_cannot_be_had_cost_no_scores_before(
    capsys: pytest.CaptureFixture[str],
    tiny_checkpoint: Path,
    tasks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    (tasks / "mine.yaml").write_text("task: mine\ndataset_path: parquet\ndataset_kwargs: {data_files: none}\n")
    words = ["--model", tiny_checkpoint, "--device", "cpu", "--tasks", tasks, "--output", tmp_path / "out"]
    words += ["--min-pixels", 4096, "--max-pixels", 65536]
    assert main(["eval", "--benchmark", "DocVQA,mine", *map(str, words)]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("neo: lmms-eval cannot load the data of mine: ")
    assert said.out == "docvqa_val: 0.0  (anls 0; 2 questions)\n"
    assert [one.task for one in read(tmp_path / "out")] == ["docvqa_val"]
