"""A table of pictures in a CSV file, which lies beside the pictures or tells the way to them."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from neo.data.sources.spans import SpanFile, decode

PICTURE_COLUMNS = ("image", "file_name", "filename", "file", "path")
"""Names of the column with the picture's path; the first that a table has is read."""


class CsvTable(SpanFile):
    """A CSV file: a picture a row, columns named in the first line, separated by comma, semicolon or tab.

    Read are the path's column, one of `PICTURE_COLUMNS`, and the columns named as a record's fields: `caption`, or
    `question` and `answer`. An empty cell is a missing field.
    """

    def __init__(self, path: Path, index_dir: Path | None = None) -> None:
        with path.open("rb") as file:
            header = decode(file.readline(), f"{path}, line 1").strip()
        self._delimiter = max(",;\t", key=header.count)
        self._columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=self._delimiter), [])]
        self._picture = next((name for name in PICTURE_COLUMNS if name in self._columns), "")
        if not self._picture:
            raise ValueError(
                f"{path}, line 1: one column must have the name {' or '.join(PICTURE_COLUMNS)}; "
                f"the names are {', '.join(self._columns) or 'missing'}"
            )
        super().__init__(path, index_dir)

    def scan(self, file: BinaryIO) -> Iterator[tuple[int, int]]:
        # What tells rows apart is ASCII, so any encoding of it will do; a row in a wrong one is a broken record.
        reader = csv.reader((line.decode("latin-1") for line in file), delimiter=self._delimiter, strict=True)
        start, number = 0, 1
        try:
            for values in reader:
                if values and number > 1:
                    yield start, number
                start, number = file.tell(), reader.line_num + 1
        except csv.Error as error:
            raise ValueError(f"{self.path}: the row that begins in line {number} is not CSV ({error})") from error

    def read(self, index: int) -> tuple[Any, str]:
        span, number = self.span(index)
        where = f"{self.path}, line {number}"
        values = next(csv.reader(io.StringIO(decode(span, where), newline=""), delimiter=self._delimiter))
        if len(values) != len(self._columns):
            raise ValueError(f"{where}: the row has {len(values)} values for {len(self._columns)} columns")
        row = {name: value for name, value in zip(self._columns, values, strict=True) if value}
        return {**row, "image": row.get(self._picture)}, where
