"""Measured scores in files, and beside the published ones."""

import json
from pathlib import Path

import pytest

from neo.evaluation.benchmarks import benchmarks, published
from neo.evaluation.table import Measured, read, table, write

DOCVQA = Measured("NEO-2B-SFT", "lmms-eval", "docvqa_val", {"anls": 0.875}, 8, None, {"prompts": "published"})


def rows(text: str) -> dict[str, list[str]]:
    """Lines of a Markdown table by their first cell."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {line[0]: line[1:] for line in lines}


def test_scores_are_in_per_cent() -> None:
    assert DOCVQA.score == 87.5
    hallusion = Measured("m", "lmms-eval", "hallusion_bench_image", {"aAcc": 60, "qAcc": 30, "fAcc": 0})
    assert hallusion.score == 30
    assert Measured("m", "lmms-eval", "mme", {"score": 3}).score is None
    assert Measured("m", "lmms-eval", "docvqa_val", {"other": 3}).score is None


def test_results_are_json_that_is_read_again(tmp_path: Path) -> None:
    file = write(DOCVQA, tmp_path)
    assert json.loads(file.read_text())["score"] == 87.5
    assert read(tmp_path) == [DOCVQA]
    write(DOCVQA, tmp_path)
    assert len(read(tmp_path)) == 1
    write(Measured("runs/mine", "lmms-eval", "docvqa_val", {"anls": 1}), tmp_path)
    assert len(read(tmp_path)) == 2


def test_measured_stand_beside_published() -> None:
    text = table([DOCVQA, Measured("NEO-2B-SFT", "lmms-eval", "chartqa", {"relaxed_overall": 0.5}, 8, 8)])
    found = rows(text)
    columns = list(benchmarks())
    assert found["model"] == columns
    mine = dict(zip(columns, found["**NEO-2B-SFT**, measured by lmms-eval"], strict=True))
    assert {name: value for name, value in mine.items() if value} == {"DocVQA": "87.5", "ChartQA": "50.0*"}
    assert "\\* of some of the questions only." in text
    systems = [one for one in published() if one.size == "2B"]
    assert len(found) == len(systems) + 3  # head, line and ours
    for one in systems:
        cells = dict(zip(columns, found[f"{one.name} ({one.base}, {one.kind})"], strict=True))
        assert {name: float(value) for name, value in cells.items() if value} == one.scores
    assert "arXiv 2510.14979" in text


@pytest.mark.parametrize(
    ("model", "sizes"), [("NEO-2B-SFT", ["2"]), ("Paranioar/NEO1_0-9B-SFT", ["8"]), ("runs/mine", ["2", "8"])]
)
def test_the_size_is_told_by_the_name(model: str, sizes: list[str]) -> None:
    text = table([Measured(model, "lmms-eval", "docvqa_val", {"anls": 0.5})])
    assert [size for size in "28" if f"models of about {size} billion" in text] == sizes


def test_other_tasks_have_their_own_table() -> None:
    text = table([Measured("m", "lmms-eval", "mme", {"mme_score": 1234.5, "none": float("nan")}, 4)])
    assert text.count("| m | lmms-eval | mme |") == 1
    assert "| m | lmms-eval | mme | mme_score | 1234 |" in text
    assert "billion" not in text


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no results here; neo eval --benchmark ... --output .* writes some"):
        read(tmp_path)


@pytest.mark.parametrize("damaged", ["{", "[]", "{}", '{"score": 1, "model": "m"}', '{"score": 1, "colour": "red"}'])
def test_a_damaged_result_is_named(tmp_path: Path, damaged: str) -> None:
    file = write(DOCVQA, tmp_path)
    file.write_text(damaged)
    with pytest.raises(ValueError, match=r"lmms-eval-docvqa_val/benchmark.json: this is not a result of neo eval"):
        read(tmp_path)
