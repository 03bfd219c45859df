"""Files in which every record is a span of bytes: a line, a row of a table, a sample of a tar.

A file is read through once to find where its records begin: 16 bytes a record, held in memory or, where a
folder for it is given, kept there for all later runs and looked up on disk. A record is then read by one seek.
"""

import hashlib
import json
import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

ROW_BYTES = 16
"""Of a record's offset and number."""
MAX_RECORD_BYTES = 1 << 30
"""Most bytes of a record: more would be a file of another kind or a damaged one, and is not to fill the memory."""


class SpanFile(ABC):
    """One such file."""

    def __init__(self, path: Path, index_dir: Path | None = None, way: str = "") -> None:
        """Find where the records begin.

        Args:
            path: the file.
            index_dir: folder to keep that in; it is made if need be.
            way: names the way of `scan`, where a class has several.

        Raises:
            ValueError: the file is not what it should be.
        """
        self.path, self.folder = path, path.parent
        self._index: np.ndarray | Path = self._scanned() if index_dir is None else self._kept(index_dir, way)
        rows = np.load(self._index, mmap_mode="r") if isinstance(self._index, Path) else self._index
        self._length = len(rows) - 1

    @abstractmethod
    def scan(self, file: BinaryIO) -> Iterator[tuple[int, int]]:
        """Offset in bytes of each record, and its number as people count it."""

    @abstractmethod
    def read(self, index: int) -> tuple[Any, str]:
        """As in `Rows`."""

    def __len__(self) -> int:
        return self._length

    def span(self, index: int) -> tuple[bytes, int]:
        """The bytes from the beginning of a record to that of the next one, and its number."""
        (start, number), (stop, _) = self._rows(index).tolist()
        if stop - start > MAX_RECORD_BYTES:
            raise ValueError(
                f"{self.path}, record {index + 1}: it has {stop - start} bytes; at most {MAX_RECORD_BYTES} are read"
            )
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(stop - start), number

    def _rows(self, index: int) -> np.ndarray:
        """(2, 2) uint64: a record's row of `_scanned` and the next one."""
        if not isinstance(self._index, Path):
            return self._index[index : index + 2]
        with self._index.open("rb") as file:  # many times faster than np.load, which reads the header each time
            file.seek(ROW_BYTES * (index - self._length - 1), os.SEEK_END)
            return np.frombuffer(file.read(2 * ROW_BYTES), np.uint64).reshape(2, 2)

    def _scanned(self) -> np.ndarray:
        """(records + 1, 2) uint64: offset and number; the last row is the end of the file."""
        with self.path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(0)
            rows = chain(self.scan(file), [(end, 0)])
            return np.fromiter(chain.from_iterable(rows), np.uint64).reshape(-1, 2)

    def _kept(self, folder: Path, way: str) -> Path:
        """The file with the rows; its name changes with the file that they are about."""
        state = self.path.stat()
        about = f"{type(self).__name__} {way} {self.path.absolute()} {state.st_size} {state.st_mtime_ns}"
        kept = folder / f"{self.path.name}.{hashlib.sha256(about.encode()).hexdigest()[:16]}.npy"
        if not kept.exists():
            rows = self._scanned()
            unfinished = kept.with_suffix(f".{uuid.uuid4().hex}.npy")  # several processes may scan the same file
            try:
                folder.mkdir(parents=True, exist_ok=True)
                np.save(unfinished, rows)
                unfinished.replace(kept)
            except OSError as error:
                raise ValueError(
                    f"{folder}: where the records of {self.path.name} begin cannot be kept here "
                    f"({error.strerror or error})"
                ) from error
        return kept


def parse_json(text: bytes, where: str) -> Any:
    """JSON to what it says, or a ValueError with the place."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where}: not JSON ({error})") from error


def decode(text: bytes, where: str) -> str:
    """UTF-8 to text, or a ValueError with the place."""
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not text in UTF-8 ({error})") from None
