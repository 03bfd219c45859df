"""Where records come from. A source has a name, a length, and a record at every index below it."""

import json
from pathlib import Path
from typing import Any, Protocol

from neo.data.config import SourceConfig
from neo.data.records import Record, parse_record
from neo.data.sources.drawn import CorpusSource, SyntheticSource


class Source(Protocol):
    """What the mixture asks of a source; reading a record must not depend on what was read before."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


class JsonSource:
    """Records in a JSON file (one list) or a JSONL file (one record a line, empty lines skipped)."""

    def __init__(self, path: str | Path, name: str = "") -> None:
        """Open the file.

        Raises:
            ValueError: there is no such file, it is empty, or it is not JSON.
        """
        self.path = Path(path)
        self.name = name or self.path.stem
        if not self.path.is_file():
            raise ValueError(f"{self.path}: there is no such file of records")
        self._lines = self.path.suffix == ".jsonl"
        self._items: list[tuple[int, Any]] = self._read_lines() if self._lines else self._read_list()
        if not self._items:
            raise ValueError(f"{self.path}: the file holds no record")

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Record:
        number, item = self._items[index]
        where = f"{self.path}, line {number}" if self._lines else f"{self.path}, record {number}"
        if self._lines:
            try:
                item = json.loads(item)
            except ValueError as error:
                raise ValueError(f"{where}: not JSON ({error})") from error
        return parse_record(item, where, self.path.parent, self.name, index)

    def _read_lines(self) -> list[tuple[int, Any]]:
        # Lines are decoded when asked for, so that a broken one is a broken record and not a broken file.
        lines = enumerate(self.path.read_bytes().splitlines(), start=1)
        return [(number, line) for number, line in lines if line.strip()]

    def _read_list(self) -> list[tuple[int, Any]]:
        try:
            records = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{self.path}: not a JSON file ({error}); one record a line needs the ending .jsonl"
            ) from error
        if not isinstance(records, list):
            raise ValueError(f"{self.path}: the file must hold a list of records")
        return list(enumerate(records, start=1))


def open_source(config: SourceConfig, name: str) -> Source:
    """The source that a recipe describes.

    Raises:
        ValueError: its file is missing or not what its kind asks for.
    """
    if config.kind == "json":
        return JsonSource(str(config.path), name)
    if config.kind == "synthetic":
        return SyntheticSource(config.seed, "train", config.families, config.size, name)
    return CorpusSource(config.seed, "train", config.size, name)
