"""Which files a recipe means, and of what kind they are."""

import glob
import re
from itertools import chain
from pathlib import Path

from neo.data.config import Kind

ENDINGS: dict[str, Kind] = {
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
}
"""Kinds that the ending of a name tells."""
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Endings of tars of which no sample can be read without all those before it."""


def find_files(path: str | list[str], kind: Kind | None = None) -> list[tuple[Path, Kind]]:
    """The files of a source, each with its kind; those of a folder or pattern in the order of their names.

    Args:
        path: as in `SourceConfig`.
        kind: as in `SourceConfig`.

    Raises:
        ValueError: there are none, or their kind is not clear.
    """
    found: list[tuple[Path, Kind]] = []
    for one in chain.from_iterable(map(_expanded, [path] if isinstance(path, str) else path)):
        place = Path(one).expanduser()
        if place.is_dir():
            found += _in_folder(place, kind)
            continue
        files = [place] if place.is_file() else sorted(map(Path, glob.glob(str(place), recursive=True)))
        if not files:
            raise ValueError(f"{one}: there is no such file of records")
        for file in files:
            if (told := kind or _told(file)) is None:
                raise ValueError(
                    f"{file}: its ending tells no kind of records; say which by kind, or end it in {_endings()}"
                )
            found.append((file, told))
    for file, told in found:
        if told == "webdataset" and file.name.lower().endswith(COMPRESSED):
            raise ValueError(
                f"{file}: samples are read in any order, which a compressed tar does not allow; decompress it to a .tar"
            )
    return found


def _expanded(path: str) -> list[str]:
    """A path with a range as WebDataset writes it, shard-{000..099}.tar, as all the paths that it means."""
    if not (written := re.search(r"\{(\d+)\.\.(\d+)\}", path)) or Path(path).expanduser().exists():
        return [path]
    first, last = written.groups()
    numbers = [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    if not numbers:
        raise ValueError(f"{path}: the range {written[0]} has no number; write the smaller one first")
    return [one for number in numbers for one in _expanded(path[: written.start()] + number + path[written.end() :])]


def _told(file: Path) -> Kind | None:
    return "webdataset" if file.name.lower().endswith(COMPRESSED) else ENDINGS.get(file.suffix.lower())


def _in_folder(folder: Path, kind: Kind | None) -> list[tuple[Path, Kind]]:
    saved = any((folder / name).exists() for name in ("state.json", "dataset_dict.json"))
    if kind == "datasets" or (kind is None and saved):
        return [(folder, "datasets")]
    files = sorted(file for file in folder.iterdir() if file.is_file())
    # Compressed tars beside records are taken for pictures packed away; alone they are refused for what they are.
    for tell in (lambda file: ENDINGS.get(file.suffix.lower()), _told):
        if found := [(file, told) for file in files if (told := tell(file)) and kind in (None, told)]:
            break
    if not found:
        raise ValueError(f"{folder}: the folder holds no file of records, which would end in {_endings(kind)}")
    if len(kinds := {told for _, told in found}) > 1:
        raise ValueError(f"{folder}: the folder holds files of the kinds {', '.join(sorted(kinds))}; say which by kind")
    return found


def _endings(kind: Kind | None = None) -> str:
    return " or ".join(ending for ending, told in ENDINGS.items() if kind in (None, told))
