import json
from pathlib import Path

import pyarrow.parquet
import pytest

from neo.inference.batch_file import COLUMNS, WRITTEN_AT_ONCE, BatchFile

ABOUT = {"data": "abc", "model": "neo-demo"}


def row(number: int, **fields: object) -> dict:
    return dict.fromkeys(COLUMNS) | {"record": number, "answer": f"answer {number}"} | fields


def test_a_broken_line_is_written_again(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with BatchFile(output, ABOUT) as file:
        file.add(row(0))
        file.add(row(1))
    with file.part.open("ab") as broken:
        broken.write(b'{"record": 2, "ans')
    with BatchFile(output, ABOUT) as file:
        assert file.done == 2
        file.add(row(2))
        assert not output.exists()
        file.finish()
    assert [json.loads(line) for line in output.read_text().splitlines()] == [row(0), row(1), row(2)]
    assert list(tmp_path.iterdir()) == [output]


def test_a_run_that_ended_in_its_first_line_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.part").write_text('{"data"')
    with BatchFile(tmp_path / "out.jsonl", ABOUT) as file:
        assert file.done == 0
    with BatchFile(tmp_path / "out.jsonl", ABOUT) as file:
        assert file.done == 0


def test_parquet_has_the_same_rows(tmp_path: Path) -> None:
    rows = [row(number, error="none" if number % 2 else None) for number in range(WRITTEN_AT_ONCE + 1)]
    with BatchFile(tmp_path / "out.parquet", ABOUT) as file:
        for one in rows:
            file.add(one)
        file.finish()
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.to_pylist() == rows
    assert {field.name: str(field.type) for field in table.schema} == COLUMNS


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    with BatchFile(tmp_path / "out.jsonl", ABOUT) as file:
        file.add(row(0, source="a\udcff.png"))
        assert [one["source"] for one in file.rows()] == ["a?.png"]


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"end in \.jsonl or \.parquet"):
        BatchFile(tmp_path / "out.csv", ABOUT)
    with pytest.raises(ValueError, match="no folder"):
        BatchFile(tmp_path / "none" / "out.jsonl", ABOUT)
    with BatchFile(tmp_path / "out.jsonl", ABOUT) as file:
        with pytest.raises(ValueError, match="another run is writing it"):
            BatchFile(tmp_path / "out.jsonl", ABOUT)
        file.add(row(0))
    with pytest.raises(ValueError, match="begun with another model;"):
        BatchFile(tmp_path / "out.jsonl", {**ABOUT, "model": "other"})
    (tmp_path / "there.jsonl").write_text("")
    with pytest.raises(ValueError, match="is there already"):
        BatchFile(tmp_path / "there.jsonl", ABOUT)


def test_what_is_there_is_overwritten_where_no_other_run_writes_it(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("finished\n")
    with BatchFile(output, ABOUT, overwrite=True) as file:
        assert not output.exists()
        file.add(row(0))
        with pytest.raises(ValueError, match="another run is writing it"):
            BatchFile(output, ABOUT, overwrite=True)
        assert list(file.rows()) == [row(0)]
    with BatchFile(output, {**ABOUT, "model": "other"}, overwrite=True) as file:
        assert file.done == 0


def test_what_was_refused_is_not_locked(tmp_path: Path) -> None:
    output, other = tmp_path / "out.jsonl", {**ABOUT, "model": "other"}
    BatchFile(output, ABOUT).__exit__()
    with pytest.raises(ValueError, match="begun with another model;") as kept:
        BatchFile(output, other)
    assert kept.value.__traceback__  # as a notebook keeps it, and with it the file
    BatchFile(output, other, overwrite=True).__exit__()
