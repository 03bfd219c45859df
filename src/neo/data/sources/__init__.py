"""Where records come from. A source has a name, a length, and a record at every index below it.

Each kind of file has a module here that reads one of them; `RecordSource` joins files, `neo.data.records` reads what
stands in them.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from neo.data.config import Kind, SourceConfig
from neo.data.sources.drawn import CorpusSource, SyntheticSource
from neo.data.sources.files import find_files
from neo.data.sources.in_memory import ListSource, load_dataset
from neo.data.sources.lines import JsonLines, JsonList, PlainText
from neo.data.sources.parquet import ParquetRows, RowGroups
from neo.data.sources.source import RecordSource, Rows, Source
from neo.data.sources.table import CsvTable
from neo.data.sources.webdataset import Tar

__all__ = ["CorpusSource", "ListSource", "RecordSource", "Source", "SyntheticSource", "open_source"]


def open_source(config: SourceConfig, name: str = "", workers: int = 0) -> Source:
    """The source that a recipe describes.

    Args:
        config: its fields.
        name: what messages call it; the file's name by default.
        workers: processes that look where the samples of tars begin; 0 to do it in this one.

    Raises:
        ValueError: a file is missing, or not what its kind asks for, or there is no record.
    """
    if config.kind == "memory":
        raise ValueError(f"the records of source {name!r} were given in Python (kind memory); start the run from there")
    if config.path is None:
        if config.kind == "synthetic":
            return SyntheticSource(config.seed, "train", config.families, config.size, name or "synthetic")
        return CorpusSource(config.seed, "train", config.size, name or "corpus")
    files = find_files(config.path, config.kind)
    parts = _opened(files, config, workers)
    source = RecordSource(name or files[0][0].stem, parts, config.image_root, config.caption_prompt)
    if not len(source):
        raise ValueError(f"{files[0][0]}: the {'file holds' if len(files) == 1 else 'files hold'} no record")
    return source


def _opened(files: Sequence[tuple[Path, Kind]], config: SourceConfig, workers: int) -> list[Rows]:
    """The files of a source, in order."""
    index_dir = None if config.index_dir is None else Path(config.index_dir).expanduser()
    if workers and len(files) > 1 and all(kind == "webdataset" for _, kind in files):
        with ProcessPoolExecutor(min(workers, len(files))) as pool:
            return list(pool.map(partial(Tar, index_dir=index_dir), [file for file, _ in files]))
    groups = RowGroups()
    return [_rows(file, kind, config, groups, index_dir) for file, kind in files]


def _rows(path: Path, kind: Kind, config: SourceConfig, groups: RowGroups, index_dir: Path | None) -> Rows:
    """One file of a source."""
    if kind == "datasets":
        return load_dataset(path)
    if kind == "parquet":
        return ParquetRows(path, groups)
    if kind == "webdataset":
        return Tar(path, index_dir)
    if kind == "csv":
        return CsvTable(path, index_dir)
    if path.suffix.lower() == ".jsonl":
        return JsonLines(path, index_dir)
    return PlainText(path, index_dir, config.text_unit) if kind == "text" else JsonList(path)
