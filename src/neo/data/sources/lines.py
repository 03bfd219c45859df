"""JSON, JSONL and plain text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from neo.data.config import TextUnit
from neo.data.sources.spans import SpanFile, decode, parse_json


class JsonList:
    """A JSON file with one list of records, which is held in memory."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ValueError: it is not JSON, or not a list.
        """
        self.path, self.folder = path, path.parent
        try:
            self._records = json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: not a JSON file ({error}); one record a line needs the ending .jsonl") from error
        if not isinstance(self._records, list):
            raise ValueError(f"{path}: the file must hold a list of records")

    def __len__(self) -> int:
        return len(self._records)

    def read(self, index: int) -> tuple[Any, str]:
        return self._records[index], f"{self.path}, record {index + 1}"


class JsonLines(SpanFile):
    """A JSONL file: a record a line, empty lines skipped. A broken line is a broken record."""

    def scan(self, file: BinaryIO) -> Iterator[tuple[int, int]]:
        return texts(file, "line")

    def read(self, index: int) -> tuple[Any, str]:
        line, number = self.span(index)
        where = f"{self.path}, line {number}"
        return parse_json(line, where), where


class PlainText(SpanFile):
    """A text file; a record is a line, a paragraph (up to an empty line) or the whole file."""

    def __init__(self, path: Path, index_dir: Path | None = None, unit: TextUnit = "line") -> None:
        self.unit = unit
        super().__init__(path, index_dir, unit)

    def scan(self, file: BinaryIO) -> Iterator[tuple[int, int]]:
        return texts(file, self.unit)

    def read(self, index: int) -> tuple[Any, str]:
        text, number = self.span(index)
        where = f"{self.path}, line {number}"
        return {"text": decode(text, where).strip()}, where


def texts(file: BinaryIO, unit: TextUnit) -> Iterator[tuple[int, int]]:
    """Offset and line number of each text; empty lines belong to none."""
    offset, begins = 0, True
    for number, line in enumerate(file, start=1):
        if line.isspace():
            begins = begins or unit == "paragraph"
        elif begins:
            yield offset, number
            begins = unit == "line"
        offset += len(line)
