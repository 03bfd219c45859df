"""Records that are to be answered rather than learned from; a folder of pictures is such records too."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from neo.data.config import Kind, SourceConfig
from neo.data.records import Record, parse_question
from neo.data.sources import RecordSource, open_source
from neo.data.sources.files import ENDINGS, find_files

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings of what is a picture in a folder."""


class Questions:
    """Conversations that end with a question, each read when it is asked for.

    `fingerprint` tells these files from others, and from the same ones when they have changed.
    """

    def __init__(
        self,
        path: str,
        question: str | None = None,
        kind: Kind | Literal["pictures"] | None = None,
        image_root: str | None = None,
    ) -> None:
        """Look at the files.

        Args:
            path: records, as in `SourceConfig`, or a folder that holds pictures and no records, at any depth.
            question: asked about the pictures of every record, in place of what it says itself.
            kind: as in `SourceConfig`; pictures for a folder of them with other files beside them.
            image_root: as in `SourceConfig`.

        Raises:
            ValueError: there are none, or they are not what they should be; pictures without a question.
        """
        self.question = question
        folder = Path(path).expanduser()
        if kind == "pictures" or (kind is None and folder.is_dir() and not _holds_records(folder)):
            if question is None:
                raise ValueError(f"{path}: pictures alone ask nothing; say what to ask about each of them")
            pictures = PictureFolder(folder)
            self.source = RecordSource(folder.name, [pictures])
            files: Iterable[Path] = (folder / name for name in pictures.names)
        else:
            source = open_source(SourceConfig(kind=kind, path=path, image_root=image_root))
            assert isinstance(source, RecordSource)
            self.source = source
            files = (file for file, _ in find_files(path, kind))
        self.fingerprint = _fingerprint(files)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        """The conversation at an index.

        Raises:
            ValueError: the record is broken, or asks nothing; the sentence names its place.
        """
        data, where, folder = self.source.read(index)
        return Record(parse_question(data, where, folder, self.question), self.source.name, index, where=where)


class PictureFolder:
    """The pictures of a folder and of those in it, in the order of their names, as records without words."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = (file for file in folder.rglob("*") if file.suffix.lower() in PICTURES and file.is_file())
        self.names = sorted(str(file.relative_to(folder)) for file in files)
        if not self.names:
            raise ValueError(f"{folder}: the folder holds neither records nor pictures ({', '.join(PICTURES)})")

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[Any, str]:
        return {"image": self.names[index]}, str(self.folder / self.names[index])


def _holds_records(folder: Path) -> bool:
    """Whether there are files of records beside what else it holds; a text asks nothing, so it is none."""
    return any(file.suffix.lower() in ENDINGS.keys() - {".txt"} for file in folder.iterdir() if file.is_file())


def _fingerprint(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        digest.update(f"{file.absolute()} {state.st_size} {state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
