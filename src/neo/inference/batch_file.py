"""The file of a batch's answers while it grows, and when it is whole."""

import fcntl
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Self

COLUMNS = {
    "record": "int64",
    "source": "string",
    "answer": "string",
    "finish_reason": "string",
    "prompt_tokens": "int64",
    "new_tokens": "int64",
    "error": "string",
}
"""Of a row, with their types in Parquet: the record's number from 0 and where it stands; its answer and why that
ended, or why there is none."""
ENDINGS = (".jsonl", ".parquet")
WRITTEN_AT_ONCE = 1024
"""Rows that are turned into Parquet at once."""


class BatchFile:
    """Rows are added in order to OUTPUT.part, lines of JSON behind one that tells what they are answers to.

    Whoever opens it again with the same task finds in `done` how many rows are there; `finish` makes OUTPUT of them.
    """

    def __init__(self, output: str | Path, about: dict[str, Any], overwrite: bool = False) -> None:
        """Begin, or go on.

        Args:
            output: the file to be; its ending says its form.
            about: what rows depend on, as JSON can say it.
            overwrite: begin anew, in place of what is there.

        Raises:
            ValueError: it is there already, cannot be written, is being written, or was begun with another task.
        """
        self.output = Path(output).expanduser()
        if self.output.suffix not in ENDINGS:
            raise ValueError(f"{output}: answers are written to files that end in {' or '.join(ENDINGS)}")
        if self.output.suffix == ".parquet":
            _pyarrow()
        if self.output.exists() and not overwrite:
            raise ValueError(f"{output}: the file is there already; name another one, or remove it")
        if not self.output.parent.is_dir():
            raise ValueError(f"{output}: there is no folder {self.output.parent} to write into")
        self.part = self.output.with_name(self.output.name + ".part")
        self._file = self.part.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{self.part}: another run is writing it") from None
        if overwrite:
            self._file.truncate(0)
            self.output.unlink(missing_ok=True)
        try:
            self.done = self._begun(about)
        except ValueError:
            self._file.close()  # or it stays locked while somebody looks at the error
            raise

    def _begun(self, about: dict[str, Any]) -> int:
        """Rows that are there; what a broken run has left of a line is cut off."""
        self._file.seek(0)
        head = self._file.readline()
        if not head.endswith(b"\n"):
            self._file.truncate(0)
            self._write(about)
            return 0
        if (then := json.loads(head)) != about:
            other = ", ".join(name for name in about if then.get(name) != about[name])
            raise ValueError(
                f"{self.part}: it was begun with another {other}; give the same again, or remove it to begin anew"
            )
        rows, stop = 0, self._file.tell()
        for line in self._file:
            if line.endswith(b"\n"):
                rows, stop = rows + 1, stop + len(line)
        self._file.truncate(stop)
        return rows

    def add(self, row: dict[str, Any]) -> None:
        """The next row."""
        self._write(row)
        self.done += 1

    def _write(self, content: dict[str, Any]) -> None:
        # A file's name may hold what is no text.
        self._file.write(json.dumps(content, ensure_ascii=False).encode(errors="replace") + b"\n")
        self._file.flush()

    def rows(self) -> Iterator[dict[str, Any]]:
        """All that are there."""
        with self.part.open("rb") as file:
            next(file)
            yield from map(json.loads, file)

    def finish(self) -> None:
        """All rows are there: they become the output, at once."""
        whole = self.output.with_name(self.output.name + ".whole")
        if self.output.suffix == ".parquet":
            self._write_parquet(whole)
        else:
            with whole.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows())
        os.replace(whole, self.output)
        self.part.unlink()

    def _write_parquet(self, path: Path) -> None:
        pyarrow, parquet = _pyarrow()
        schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()])
        with parquet.ParquetWriter(path, schema) as writer:
            rows = self.rows()
            while some := list(islice(rows, WRITTEN_AT_ONCE)):
                writer.write_table(pyarrow.Table.from_pylist(some, schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("writing Parquet needs pyarrow: pip install 'neo-vlm[train]'") from error
    return pyarrow, pyarrow.parquet
