"""`neo batch` at the command line."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from neo.cli import main
from neo.inference import batch

SHORT = ["--max-new-tokens", 4, "--device", "cpu"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for color in ("blue", "green", "red"):
        Image.new("RGB", (64, 64), color).save(folder / f"{color}.png")
    return folder


def test_pictures_to_parquet(run: Callable, tiny_checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    words = ["--data", pictures, "--question", "What?", "--model", tiny_checkpoint, *SHORT]
    assert run("batch", *words, "--output", output) == f"{output}: 3 records\n"
    rows = pyarrow.parquet.read_table(output).to_pylist()
    assert [row["source"] for row in rows] == [str(pictures / f"{color}.png") for color in ("blue", "green", "red")]
    answers = [run("ask", row["source"], "What?", "--model", tiny_checkpoint, *SHORT) for row in rows[:1]]
    assert answers == [f"{rows[0]['answer']}\n"]


def test_records_of_parquet_are_answered_as_those_of_jsonl(
    run: Callable, tiny_checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    asked = [{"image": f"{color}.png", "question": f"Is it {color}?"} for color in ("red", "blue")]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(asked), pictures / "in.parquet")
    (pictures / "in.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    rows = {}
    for kind in ("parquet", "jsonl"):
        output = tmp_path / f"{kind}.jsonl"
        words = ["--data", pictures / f"in.{kind}", "--output", output, "--model", tiny_checkpoint, *SHORT]
        assert run("batch", *words) == f"{output}: 2 records\n"
        rows[kind] = [json.loads(line) for line in output.read_text().splitlines()]
        assert all(row.pop("source").startswith(f"{pictures}/in.{kind}") for row in rows[kind])
    assert all(row["answer"] for row in rows["parquet"])
    assert rows["parquet"] == rows["jsonl"]


def test_progress_is_told_on_stderr(
    tiny_checkpoint: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = importlib.import_module("neo.cli.batch")
    monkeypatch.setattr(module, "LINE_SECONDS", 0)
    words = ["--data", pictures, "--question", "What?", "--model", tiny_checkpoint, *SHORT]
    assert main([*map(str, ["batch", *words, "--output", tmp_path / "out.jsonl"])]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "records" in line]
    assert [line.partition(",")[0] for line in lines] == [f"{number} of 3 records" for number in (1, 2, 3)]
    assert all(line.endswith(" minutes left") for line in lines)
    monkeypatch.setattr(module, "LINE_SECONDS", 30)
    assert list(module._shown(iter("cd"), 2, 4)) == ["c", "d"]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module, "LINE_SECONDS", 0)
    assert list(module._shown(iter("cd"), 2, 4)) == ["c", "d"]
    assert capsys.readouterr().err.startswith("3 of 4 records, ")  # those of before the interruption count


def test_an_interrupted_run_goes_on(
    tiny_checkpoint: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (pictures / "broken.png").write_text("no picture")
    words = ["batch", "--data", str(pictures), "--question", "What?", "--model", str(tiny_checkpoint)]
    words += ["--output", "out.jsonl", "--temperature", "1", *map(str, SHORT)]
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1  # a record could not be answered
    whole = (tmp_path / "out.jsonl").read_text()
    said = capsys.readouterr().out
    assert said.startswith("out.jsonl: 4 records, 1 not answered\nthe first of these, record 1 (from 0): ")
    assert "broken.png" in said

    (tmp_path / "out.jsonl").unlink()
    answer, asked = batch.answer, []

    def stop_at_2(*arguments: object) -> object:
        for row in answer(*arguments):
            if row["record"] == 2:
                raise KeyboardInterrupt
            yield row

    def count(model: object, task: object, records: range) -> object:
        asked.extend(records)
        return answer(model, task, records)

    monkeypatch.setattr(batch, "answer", stop_at_2)
    assert main(words) == 130
    assert not (tmp_path / "out.jsonl").exists()
    monkeypatch.setattr(batch, "answer", count)
    assert main([*words, "--system", "Be brief."]) == 2
    assert "begun with another system" in capsys.readouterr().err
    assert main(words) == 1
    assert asked == [2, 3]
    assert (tmp_path / "out.jsonl").read_text() == whole
    assert json.loads(whole.splitlines()[3])["answer"] is not None


def test_mistakes_are_one_sentence(refuse: Callable, pictures: Path, tmp_path: Path) -> None:
    asked = ["--data", pictures, "--question", "What?", "--output", tmp_path / "out.jsonl"]
    assert "pictures alone ask nothing" in refuse("batch", "--data", pictures, "--output", tmp_path / "out.jsonl")
    assert "no such file" in refuse("batch", "--data", tmp_path / "none.jsonl", "--output", tmp_path / "out.jsonl")
    assert "did you mean neo-demo?" in refuse("batch", *asked, "--model", "neo-dem")
    assert "end in .jsonl or .parquet" in refuse("batch", *asked[:-1], tmp_path / "out.txt")
    assert "--workers must be at least 0" in refuse("batch", *asked, "--workers", -1)
    assert "neo batch needs --output" in refuse("batch", *asked[:-2])
    assert not list(tmp_path.glob("out.*"))
