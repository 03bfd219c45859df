"""Parquet files, as on the Hugging Face hub, with the bytes of pictures inside."""

from bisect import bisect_right
from collections import OrderedDict
from itertools import accumulate
from pathlib import Path
from typing import Any

from neo.data.records import known_fields

CACHE_BYTES = 256 << 20
"""Size up to which row groups that were read are kept, those of all files of a source together."""


class RowGroups:
    """The row groups that were read last: at least one, and as many as `CACHE_BYTES` hold."""

    def __init__(self) -> None:
        self._tables: OrderedDict[tuple[Path, int], Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"_tables": OrderedDict()}  # another process reads its own

    def table(self, path: Path, number: int, columns: list[str]) -> Any:
        """One row group as a pyarrow table."""
        import pyarrow.parquet

        key = path, number
        if key not in self._tables:
            # Threads of its own would be lost in worker processes, which are cores enough.
            with pyarrow.parquet.ParquetFile(path) as file:
                self._tables[key] = file.read_row_group(number, columns, use_threads=False)
        self._tables.move_to_end(key)
        while len(self._tables) > 1 and sum(table.nbytes for table in self._tables.values()) > CACHE_BYTES:
            self._tables.popitem(last=False)
        return self._tables[key]


class ParquetRows:
    """A Parquet file: a record a row, in any of the ways of `neo.data.records`.

    A row group is the least that can be read, so random reading is fast where row groups are small.
    """

    def __init__(self, path: Path, groups: RowGroups) -> None:
        """Read the file's footer.

        Raises:
            ValueError: pyarrow is missing, this is no Parquet file, or no column of it is a record's field.
        """
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ValueError("reading Parquet needs pyarrow: pip install 'neo-vlm[train]'") from error
        self.path, self.folder, self._groups = path, path.parent, groups
        try:
            footer = pyarrow.parquet.read_metadata(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path}: not a Parquet file ({error})") from error
        self._columns = known_fields(footer.schema.to_arrow_schema().names, str(path))
        self._stops = list(accumulate(footer.row_group(number).num_rows for number in range(footer.num_row_groups)))

    def __len__(self) -> int:
        return self._stops[-1] if self._stops else 0

    def read(self, index: int) -> tuple[Any, str]:
        import pyarrow

        where = f"{self.path}, row {index} (from 0)"
        number = bisect_right(self._stops, index)
        try:
            table = self._groups.table(self.path, number, self._columns)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{where}: its row group cannot be read ({error})") from error
        return table.slice(index - self._stops[number] + table.num_rows, 1).to_pylist()[0], where
