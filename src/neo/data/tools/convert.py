"""Records from any source into one file: LLaVA JSON, JSONL of messages, Parquet or a WebDataset tar.

Whatever the forms, the conversation is the same afterwards: turns, texts, places and bytes of pictures. What
`neo.data.records` does not read is not carried over. `.jsonl` and `.tar` keep the messages as they are; `.json` and
`.parquet` have texts only, in which `<image>` is the place of a picture.

`.json` and `.jsonl` tell the way to picture files, where there are some; pictures that come as bytes are written into a
folder beside them. `.parquet` and `.tar` hold the pictures themselves.
"""

import json
import logging
import os
import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from neo.data.records import PLACEHOLDER, Record
from neo.data.sources import Source
from neo.data.tools.walk import Track, picture_name, some, untracked, walk, where
from neo.processing import chat
from neo.processing.picture import is_web_address, picture_file

logger = logging.getLogger(__name__)

LLAVA_ROLES = {"user": "human", "assistant": "gpt", "system": "system"}
GROUP_ROWS, GROUP_BYTES = 1000, 4 << 20
"""A Parquet file's row group, the least that can be read of it, is written when it reaches one of these."""
FOLDER_FILES = 10_000
"""Pictures in one folder."""


def convert(
    sources: Sequence[Source],
    output: str | Path,
    overwrite: bool = False,
    skip_bad: bool = False,
    indices: Sequence[Sequence[int]] | None = None,
    track: Track = untracked,
) -> tuple[int, int]:
    """Write the records of sources, one source after the other, into a file; its ending says in which form.

    The file stands under its name only when it is whole.

    Args:
        sources: where the records come from.
        output: .json, .jsonl, .parquet or .tar.
        overwrite: put it in the place of a file, and folder of pictures, that is there already.
        skip_bad: leave out records that cannot be read or written, and name them in the log, instead of stopping.
        indices: the records of each source; all by default.
        track: shows the progress.

    Returns:
        How many records were written, and how many left out.

    Raises:
        ValueError: an unknown ending, a file that is there already, no folder to write into, a bad record.
    """
    output = Path(output).expanduser()
    if output.suffix.lower() not in _WRITERS:
        raise ValueError(f"{output}: the ending must be one of {', '.join(_WRITERS)}; it says which form to write")
    if not output.parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.parent} to write into")
    for there in (output, _pictures_of(output)):
        if there.exists() and not overwrite:
            raise ValueError(f"{there} is there already; --overwrite puts the new one in its place")
    written = left_out = 0
    chosen = [some(source) for source in sources] if indices is None else indices
    with _WRITERS[output.suffix.lower()](output) as writer:
        for record in walk(sources, chosen, _read, track=track):
            try:
                if isinstance(record, ValueError):
                    raise record
                writer.add(record)
                written += 1
            except ValueError as error:
                if not skip_bad:
                    raise
                logger.warning("left out %s", error)
                left_out += 1
    return written, left_out


def _read(source: Source, index: int) -> Record | ValueError:
    try:
        return source[index]
    except ValueError as error:
        return error


class _Writer(ABC):
    """Writes beside `output`; what was written takes its place when the writer is left without an error."""

    def __init__(self, output: Path) -> None:
        self.output, self.partial = output, output.with_name(f".{output.name}.partial")
        self.written = 0

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, kind: type | None, *error: Any) -> None:
        try:
            self.close()
            if kind is None:
                self.finish()
        finally:
            self.partial.unlink(missing_ok=True)

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def add(self, record: Record) -> None:
        """Write one record.

        Raises:
            ValueError: a picture of it cannot be read, or the form cannot express it; nothing is written then.
        """

    @abstractmethod
    def close(self) -> None: ...

    def finish(self) -> None:
        os.replace(self.partial, self.output)


class _Lines(_Writer):
    """JSONL: `{"messages": [...], "images": [paths], "family": ...}`, and the folder of pictures beside it."""

    start, between, end = "", "\n", "\n"

    def __init__(self, output: Path) -> None:
        super().__init__(output)
        self.folder = _pictures_of(output)
        self.partial_folder = self.folder.with_name(f".{self.folder.name}.partial")
        self.pictures, self.uses_folder = 0, False

    def __exit__(self, kind: type | None, *error: Any) -> None:
        try:
            super().__exit__(kind, *error)
        finally:
            shutil.rmtree(self.partial_folder, ignore_errors=True)

    def open(self) -> None:
        self.file = self.partial.open("w", encoding="utf-8")
        self.file.write(self.start)

    def add(self, record: Record) -> None:
        fields = self.fields(record)
        self.file.write((self.between if self.written else "") + json.dumps(fields, ensure_ascii=False))
        self.written += 1

    def fields(self, record: Record) -> dict[str, Any]:
        messages, pictures = _flat(record)
        places = self.places(pictures, record)
        return {"messages": messages, **({"images": places} if places else {}), **_family(record)}

    def places(self, pictures: Sequence[Any], record: Record) -> list[str]:
        """What the record says of its pictures: an address, or the way to a file, which is written if there is none."""
        found = [picture if isinstance(picture, str) else _file(picture, record) for picture in pictures]
        return [self._way(one) if isinstance(one, str) else self._write(*one) for one in found]

    def _way(self, picture: str) -> str:
        if is_web_address(picture) or picture.startswith("data:"):
            return picture
        path = Path(picture).parent.resolve() / Path(picture).name
        self.uses_folder = self.uses_folder or self.folder.resolve() in path.parents
        return os.path.relpath(path, self.output.parent.resolve())

    def _write(self, data: bytes, ending: str) -> str:
        file = Path(f"{self.pictures // FOLDER_FILES:05}") / f"{self.pictures:09}.{ending}"
        (self.partial_folder / file).parent.mkdir(parents=True, exist_ok=True)
        (self.partial_folder / file).write_bytes(data)
        self.pictures += 1
        return str(self.folder.name / file)

    def close(self) -> None:
        self.file.write(self.end)
        self.file.close()

    def finish(self) -> None:
        if self.pictures:
            if self.uses_folder:
                raise ValueError(f"{self.folder} holds pictures of these records; choose another name for the output")
            shutil.rmtree(self.folder, ignore_errors=True)
            os.replace(self.partial_folder, self.folder)
        super().finish()


class _Llava(_Lines):
    """LLaVA: `[{"image": path or paths, "conversations": [{"from": ..., "value": ...}], "family": ...}]`."""

    start, between, end = "[\n", ",\n", "\n]\n"

    def fields(self, record: Record) -> dict[str, Any]:
        turns, pictures = _texts(record, ".json")
        places = self.places(pictures, record)
        said = [{"from": LLAVA_ROLES[role], "value": text} for role, text in turns]
        image = {"image": places if len(places) > 1 else places[0]} if places else {}
        return {**image, "conversations": said, **_family(record)}


class _Parquet(_Writer):
    """Parquet: columns `messages` (role, content), `images` (bytes, path) and `family`."""

    def open(self) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ValueError("writing Parquet needs pyarrow: pip install 'neo-vlm[train]'") from error
        text = pyarrow.string()
        self.schema = pyarrow.schema(
            {
                "messages": pyarrow.list_(pyarrow.struct({"role": text, "content": text})),
                "images": pyarrow.list_(pyarrow.struct({"bytes": pyarrow.binary(), "path": text})),
                "family": text,
            }
        )
        self.rows: list[dict[str, Any]] = []
        self.bytes = 0
        self.file = pyarrow.parquet.ParquetWriter(self.partial, self.schema)

    def add(self, record: Record) -> None:
        turns, pictures = _texts(record, ".parquet")
        files = [_file(picture, record)[0] for picture in pictures]
        paths = [_file_name(picture) for picture in pictures]
        images = [{"bytes": data, "path": path} for data, path in zip(files, paths, strict=True)]
        messages = [{"role": role, "content": text} for role, text in turns]
        self.rows.append({"messages": messages, "images": images, "family": record.family})
        self.bytes += sum(map(len, files))
        if len(self.rows) >= GROUP_ROWS or self.bytes >= GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        import pyarrow

        if self.rows:
            self.file.write_table(pyarrow.Table.from_pylist(self.rows, self.schema))
        self.rows, self.bytes = [], 0

    def close(self) -> None:
        self._write()
        self.file.close()


class _Tar(_Writer):
    """WebDataset: for each record a `.json` of its messages, then its pictures, all named by its number."""

    def open(self) -> None:
        self.file = tarfile.TarFile(self.partial, "w")

    def add(self, record: Record) -> None:
        messages, pictures = _flat(record)
        files = [_file(picture, record) for picture in pictures]
        fields = json.dumps({"messages": messages, **_family(record)}, ensure_ascii=False)
        self._member(f"{self.written:09}.json", fields.encode())
        for number, (data, ending) in enumerate(files):
            middle = f".{number}" if len(files) > 1 else ""
            self._member(f"{self.written:09}{middle}.{ending}", data)
        self.written += 1

    def _member(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self.file.addfile(member, BytesIO(data))

    def close(self) -> None:
        self.file.close()


_WRITERS: Mapping[str, type[_Writer]] = {".json": _Llava, ".jsonl": _Lines, ".parquet": _Parquet, ".tar": _Tar}


def _pictures_of(output: Path) -> Path:
    """Where the pictures of a JSON or JSONL file go that have no file yet."""
    return output.with_name(f"{output.name}.pictures")


def _family(record: Record) -> dict[str, str]:
    return {"family": record.family} if record.family else {}


def _file_name(picture: Any) -> str | None:
    return Path(picture).name if isinstance(picture, str) and not picture.startswith("data:") else None


def _flat(record: Record) -> tuple[list[dict[str, Any]], list[Any]]:
    """The messages without their pictures, and the pictures in order; their places remain."""
    messages, pictures = [], []
    for message in record.messages:
        content = message["content"]
        if isinstance(content, str):
            pictures += message.get("image", [])
        else:
            pictures += [part["image"] for part in content if part["type"] == "image"]
            content = [{"type": "image"} if part["type"] == "image" else part for part in content]
        messages.append({"role": message["role"], "content": content})
    return messages, pictures


def _texts(record: Record, form: str) -> tuple[list[tuple[str, str]], list[Any]]:
    """The turns as (role, text) with `<image>` for each picture, and the pictures in order."""
    conversation = chat.parse(record.messages)
    turns = []
    for turn in conversation.turns:
        text = "".join(part if isinstance(part, str) else PLACEHOLDER for part in turn.parts)
        if turn.role == "user" and text.count(PLACEHOLDER) != sum(isinstance(part, int) for part in turn.parts):
            raise ValueError(
                f"{where(record)}: a user's text holds {PLACEHOLDER} as plain words, which {form} takes for the "
                "place of a picture; .jsonl and .tar keep them apart"
            )
        turns.append((turn.role, text))
    return turns, conversation.images


def _file(picture: Any, record: Record) -> tuple[bytes, str]:
    """The bytes of a picture's file, and the ending of its name."""
    return picture_file(picture, picture_name(record, picture))
