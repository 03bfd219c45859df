"""What is known about every record of a source before any of them is read: its length, its pictures, what is wrong.

A folder holds the index of one source: tables that are mapped into memory, one row a record in the order of the
source (21 bytes, and 8 for each picture), and `index.json` about what they were made from. With it a run packs rows
without reading records, and every rank reads only its own. Nothing is decoded to make one.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset

from neo.data.config import DataConfig
from neo.data.sources import Source
from neo.processing.processor import NeoProcessor

VERSION = 1
"""Of the tables and of the arithmetic behind them; an index of another one is made again."""
RECORD = np.dtype(
    [("first_picture", "<u8"), ("tokens", "<u4"), ("labelled", "<u4"), ("pictures", "<u4"), ("problem", "u1")]
)
"""A row of `records.npy`. The sizes of its pictures are `pictures` rows of `sizes.npy` from `first_picture` on."""
ABOUT, RECORDS, SIZES, PROBLEMS, CHUNKS = "index.json", "records.npy", "sizes.npy", "problems.json", "chunks"
CHUNK = 16_384
"""Most records of a chunk: what a killed run loses, at most, for each worker."""
PROBES = 8
"""Records that are measured again to recognise a source that is not made of files."""
NOTHING_TO_LEARN = "no token of it is an answer to learn"


class Index:
    """The index of one source."""

    def __init__(self, folder: str | Path) -> None:
        """Open the tables; they are read from disk as they are needed.

        Raises:
            ValueError: there is no index in the folder.
        """
        self.folder = Path(folder)
        if not (self.folder / ABOUT).is_file():
            raise ValueError(f"{self.folder}: there is no finished index here; make it with neo data index")
        self.about: dict[str, Any] = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
        self.records = np.asarray(np.load(self.folder / RECORDS, mmap_mode="r"))
        """(records,) of type `RECORD`."""
        self.picture_sizes = np.asarray(np.load(self.folder / SIZES, mmap_mode="r"))
        """(pictures of all records, 2) uint32: width and height in pixels, as in the files."""
        self._problems: dict[str, str] | None = None

    def __reduce__(self) -> tuple[type["Index"], tuple[Path]]:
        return Index, (self.folder,)  # other processes open the tables, not copy them

    def __len__(self) -> int:
        return len(self.records)

    @property
    def mean_tokens(self) -> float:
        """Tokens of a record that can be learned from, on average."""
        return self.about["tokens"] / max(1, len(self) - self.about["problems"])

    def tokens(self, record: int) -> int:
        """Tokens of a record: `len(processor.encode(...).input_ids)`."""
        return int(self.records[record]["tokens"])

    def sizes(self, record: int) -> np.ndarray:
        """(pictures, 2): width and height of a record's pictures, in pixels."""
        first, count = int(self.records[record]["first_picture"]), int(self.records[record]["pictures"])
        return self.picture_sizes[first : first + count]

    def problem(self, record: int) -> str | None:
        """Why a record cannot be learned from, if so."""
        if not self.records[record]["problem"]:
            return None
        if self._problems is None:
            self._problems = json.loads((self.folder / PROBLEMS).read_text(encoding="utf-8"))
        return self._problems[str(record)]

    def check(self, source: Source, processor: NeoProcessor) -> None:
        """See that the index is of this source and processor, as they are now.

        Raises:
            ValueError: it is not; the sentence tells what has changed.
        """
        if changed := self.changed(source, processor):
            raise ValueError(
                f"{self.folder}: the index of {source.name!r} was made with other {' and '.join(changed)} than now; "
                "make it again with neo data index"
            )

    def changed(self, source: Source, processor: NeoProcessor) -> list[str]:
        """What the index was made from that is not so any more."""
        now = describe(source, processor)
        changed = [name for name, value in now.items() if self.about.get(name) != value]
        if not changed and not now["files"]:
            probes = [k * len(self) // PROBES for k in range(PROBES)]
            again, _, _ = measure(source, processor, probes)
            if (again["tokens"] != self.records[probes]["tokens"]).any():
                changed = ["records"]
        return changed


def build_index(
    source: Source, processor: NeoProcessor, folder: str | Path, workers: int = 0, progress: bool = True
) -> Index:
    """Make the index of a source; a killed run is gone on with, and a finished index that is not stale left alone.

    Args:
        source: the records.
        processor: as in training: lengths depend on its tokenizer and its bounds of picture sizes.
        folder: where to, made if need be.
        workers: processes that measure, 0 to do it in this one.
        progress: show how far it is, on stderr.

    Raises:
        ValueError: the folder cannot be written to.
    """
    folder = Path(folder)
    if (folder / ABOUT).is_file() and not Index(folder).changed(source, processor):
        return Index(folder)
    about = describe(source, processor)
    try:
        _measure_chunks(source, processor, folder / CHUNKS, about, workers, progress)
        _join(folder, about)
    except OSError as error:
        raise ValueError(f"{folder}: the index cannot be written here ({error.strerror or error})") from error
    return Index(folder)


def open_indices(config: DataConfig, sources: Sequence[Source], processor: NeoProcessor) -> list[Index | None]:
    """The index of each source of a recipe; None where it asks for none, and for sources that are drawn.

    Raises:
        ValueError: an index is missing or stale.
    """
    indices: list[Index | None] = []
    for source in sources:
        if config.index is None or config.sources[source.name].path is None:
            indices.append(None)
            continue
        index = Index(index_folder(config, source.name))
        index.check(source, processor)
        indices.append(index)
    return indices


def index_folder(config: DataConfig, name: str) -> Path:
    """Where a recipe keeps the index of a source; `config.index` must be given, and may be that of its only source."""
    folder = Path(str(config.index)).expanduser()
    return folder if len(config.sources) == 1 and (folder / ABOUT).is_file() else folder / name


def measure(
    source: Source, processor: NeoProcessor, places: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Rows of the tables for some records, and what is wrong with those that have a problem.

    Returns:
        (records,) of type `RECORD`, (pictures, 2) uint32, and problems by record.
    """
    records = np.zeros(len(places), RECORD)
    sizes: list[tuple[int, int]] = []
    problems: dict[str, str] = {}
    for row, place in enumerate(places):
        records[row]["first_picture"] = len(sizes)
        # Records and processing raise ValueError for bad input; anything else is a defect.
        try:
            measured, problem = _measured(source, processor, place)
        except ValueError as error:
            problem = str(error)
        else:
            records[row]["tokens"], records[row]["labelled"] = measured.tokens, measured.labelled
            records[row]["pictures"] = len(measured.sizes)
            sizes += measured.sizes
        if problem:
            records[row]["problem"], problems[str(place)] = True, problem
    return records, np.array(sizes, dtype=np.uint32).reshape(-1, 2), problems


def _measured(source: Source, processor: NeoProcessor, place: int) -> tuple[Any, str]:
    """What the processor measures of a record, and why it cannot be learned from all the same.

    Raises:
        ValueError: it cannot be read, with the place where it stands.
    """
    record = source[place]
    try:
        measured = processor.measure(record.messages, share_pixels=True)
    except ValueError as error:
        raise ValueError(record.problem(error)) from error
    return measured, "" if measured.labelled else record.problem(NOTHING_TO_LEARN)


def describe(source: Source, processor: NeoProcessor) -> dict[str, Any]:
    """What an index is made from; with another one it is stale."""
    files = [Path(part.path) for part in getattr(source, "parts", ()) if hasattr(part, "path")]
    images = processor.image_processor
    settings = [images.patch_size, images.downsample_ratio, images.min_pixels, images.max_pixels]
    tokenizer = hashlib.sha256(processor.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    return {
        "version": VERSION,
        "number of records": len(source),
        "files": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files],
        "picture settings": settings,
        "tokenizer": tokenizer,
    }


class _Chunks(Dataset):
    """A source measured chunk by chunk."""

    def __init__(self, source: Source, processor: NeoProcessor) -> None:
        self.source, self.processor = source, processor
        # The same for any number of workers; small sources are cut finely enough to be shared out.
        self.size = min(CHUNK, max(64, len(source) // 256))
        self.count = -(-len(source) // self.size)

    def __getitem__(self, number: int) -> tuple[int, np.ndarray, np.ndarray, dict[str, str]]:
        places = range(number * self.size, min((number + 1) * self.size, len(self.source)))
        return number, *measure(self.source, self.processor, places)


def _measure_chunks(
    source: Source, processor: NeoProcessor, folder: Path, about: dict[str, Any], workers: int, progress: bool
) -> None:
    """Measure what is not measured yet, each chunk into a file of its own."""
    started = folder / ABOUT
    if not started.is_file() or json.loads(started.read_text(encoding="utf-8")) != about:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _write(started, json.dumps(about))
    chunks = _Chunks(source, processor)
    missing = [number for number in range(chunks.count) if not _chunk(folder, number).exists()]
    measured = DataLoader(chunks, batch_size=None, sampler=missing, num_workers=workers, collate_fn=_as_it_is)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not progress) as bar:
        done = len(source) - sum(min(chunks.size, len(source) - number * chunks.size) for number in missing)
        task = bar.add_task(source.name, total=len(source), completed=done)
        for number, records, sizes, problems in measured:
            said = np.frombuffer(json.dumps(problems).encode(), np.uint8)
            unfinished = folder / "unfinished.npz"
            np.savez(unfinished, records=records, sizes=sizes, problems=said)
            unfinished.replace(_chunk(folder, number))
            bar.advance(task, len(records))


def _join(folder: Path, about: dict[str, Any]) -> None:
    """The chunks' tables one after the other; `index.json` comes last."""
    (folder / ABOUT).unlink(missing_ok=True)
    files = sorted((folder / CHUNKS).glob("*[0-9].npz"))
    pictures = 0
    for file in files:
        with np.load(file) as chunk:
            pictures += len(chunk["sizes"])
    records = np.lib.format.open_memmap(folder / RECORDS, "w+", RECORD, (about["number of records"],))
    sizes = np.lib.format.open_memmap(folder / SIZES, "w+", np.uint32, (pictures, 2))
    problems: dict[str, str] = {}
    row = picture = tokens = 0
    for file in files:
        with np.load(file) as chunk:
            here, seen, said = chunk["records"], chunk["sizes"], chunk["problems"].tobytes()
        here["first_picture"] += np.uint64(picture)
        records[row : row + len(here)] = here
        sizes[picture : picture + len(seen)] = seen
        problems |= json.loads(said)
        tokens += int(here["tokens"][here["problem"] == 0].sum(dtype=np.int64))
        row, picture = row + len(here), picture + len(seen)
    records.flush()
    sizes.flush()
    _write(folder / PROBLEMS, json.dumps(problems, indent=0, ensure_ascii=False))
    _write(folder / ABOUT, json.dumps(about | {"tokens": tokens, "pictures": picture, "problems": len(problems)}))
    shutil.rmtree(folder / CHUNKS)


def _chunk(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.npz"


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _as_it_is(chunk: Any) -> Any:
    return chunk
