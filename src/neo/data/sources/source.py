"""What a source is, and how records read from anywhere become one."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from neo.data.records import CAPTION_PROMPT, Record, parse_record


class Source(Protocol):
    """What the mixture asks of a source; reading a record must not depend on what was read before."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


class Rows(Protocol):
    """Records as people write them: those of one file, or of a list in memory.

    Nothing stays open between two calls of `read`, so worker processes can share or copy it as it is.
    """

    folder: Path
    """What relative picture paths are relative to."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Any, str]:
        """What stands at an index, for `parse_record`, and what messages call that place."""
        ...


class RecordSource:
    """Records of any number of files, one file after the other."""

    def __init__(
        self,
        name: str,
        parts: Sequence[Rows],
        image_root: str | Path | None = None,
        caption_prompt: str = CAPTION_PROMPT,
    ) -> None:
        """Join the parts.

        Args:
            name: name of the source.
            parts: the files.
            image_root: what relative picture paths are relative to; the folder of their file by default.
            caption_prompt: what the user asks where a record has only a caption.
        """
        self.name, self.parts = name, list(parts)
        self.image_root = None if image_root is None else Path(image_root).expanduser()
        self.caption_prompt = caption_prompt
        self._stops = list(accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        return self._stops[-1] if self._stops else 0

    def __getitem__(self, index: int) -> Record:
        data, where, folder = self.read(index)
        return parse_record(data, where, folder, self.name, index, self.caption_prompt)

    def read(self, index: int) -> tuple[Any, str, Path]:
        """What stands at an index, what messages call that place, and what its picture paths are relative to."""
        if not 0 <= index < len(self):
            raise IndexError(f"the source {self.name!r} has {len(self)} records, no record {index}")
        number = bisect_right(self._stops, index)
        part = self.parts[number]
        data, where = part.read(index - self._stops[number] + len(part))
        return data, where, part.folder if self.image_root is None else self.image_root
