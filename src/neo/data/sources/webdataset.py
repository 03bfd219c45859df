"""WebDataset tars, as img2dataset writes them, read where they lie and in any order."""

import io
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from neo.data.sources.spans import SpanFile, decode, parse_json

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
"""Endings of members that are pictures."""


class Tar(SpanFile):
    """A tar in which neighbours whose names agree up to the first dot are one sample.

    A sample's `.json` is the record, its `.txt` the caption; its pictures are the record's, in the tar's order,
    whatever the record calls them. Other members are not read.
    """

    def scan(self, file: BinaryIO) -> Iterator[tuple[int, int]]:
        number, last = 0, ""
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # it would remember all of them
                    if member.isfile() and (key := _key(member)) not in ("", last):
                        number, last = number + 1, key
                        yield member.offset, number
        except tarfile.TarError as error:
            raise ValueError(
                f"{self.path}: not a whole tar without compression ({error}, after sample {number})"
            ) from error

    def read(self, index: int) -> tuple[Any, str]:
        span, _ = self.span(index)
        with tarfile.open(fileobj=io.BytesIO(span), mode="r:") as tar:
            members = [(member, tar.extractfile(member)) for member in tar if member.isfile() and _key(member)]
            files = {member.name: file.read() for member, file in members if file}
        where = f"{self.path}, sample {_key(members[0][0])}"
        record: dict[str, Any] = {}
        pictures = []
        for name, content in files.items():
            place = f"{where}, {name}"
            if name.lower().endswith(PICTURES):
                pictures.append(content)
            elif name.lower().endswith(".txt"):
                record["caption"] = decode(content, place).strip()
            elif name.lower().endswith(".json"):
                value = parse_json(content, place)
                if not isinstance(value, dict):
                    raise ValueError(f"{place}: a record must be an object")
                record = value | record
        return {**record, "image": None, "images": pictures}, where


def _key(member: tarfile.TarInfo) -> str:
    """What the members of a sample have in common; nothing for hidden files."""
    folder, slash, name = member.name.rpartition("/")
    key = name.partition(".")[0]
    return key and folder + slash + key
