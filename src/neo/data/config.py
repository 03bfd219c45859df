"""What a run learns from: the fields of a recipe's `data`."""

from dataclasses import dataclass
from typing import Any, Literal

from neo.data.records import CAPTION_PROMPT

TextUnit = Literal["line", "paragraph", "document"]
Kind = Literal["json", "parquet", "webdataset", "csv", "text", "datasets", "synthetic", "corpus"]


@dataclass
class SourceConfig:
    """One source of records: files, or a stream that is drawn."""

    kind: Kind | None = None
    """What the files are; told by the endings of their names if left out (`neo.data.sources`). Or drawn pictures
    (synthetic), or drawn plain texts for a language model (corpus)."""
    weight: float = 1.0
    """Share of the samples, relative to the other sources."""
    path: str | list[str] | None = None
    """A file, a folder of them, a pattern such as data/*.tar, or a list of these."""
    image_root: str | None = None
    """Folder that relative picture paths are relative to; by default that of the file they stand in."""
    caption_prompt: str = CAPTION_PROMPT
    """What the user asks where a record has only a caption."""
    text_unit: TextUnit = "line"
    """What of a .txt file is a record: each line, each paragraph (up to an empty line) or all of it (kind text)."""
    index_dir: str | None = None
    """Folder that keeps where records begin in files, so that only the first run has to search them for it and none
    holds it in memory (kinds json, webdataset, csv and text)."""
    families: dict[str, float] | None = None
    """Weight of each family; all of them by default (kind synthetic)."""
    seed: int = 0
    """Which stream is drawn (kinds synthetic and corpus)."""
    size: int = 10_000_000
    """Samples before the source repeats itself (kinds synthetic and corpus)."""

    def __post_init__(self) -> None:
        if (self.kind in ("synthetic", "corpus")) != (self.path is None):
            raise ValueError(
                f"a source of kind {self.kind!r} has path={self.path!r}: kinds synthetic and corpus have none, "
                "any other needs one"
            )
        if self.families is not None and self.kind != "synthetic":
            raise ValueError(f"a source of kind {self.kind!r} has no families; only kind synthetic does")


@dataclass
class DataConfig:
    """What is learned from and how it is laid out."""

    sources: dict[str, SourceConfig]
    """Sources by name."""
    max_seq_length: int = 512
    """Tokens of a packed row; longer samples are left out."""
    rows_per_batch: int = 8
    """Rows of one step, over all ranks together."""
    lookahead_rows: int = 64
    """Rows worth of samples that rows are chosen from."""
    max_bad_fraction: float = 0.01
    """Share of samples that may be too long or unreadable before the run stops."""
    workers: int = 1
    """Processes that draw and encode ahead; 0 does it in the training process."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("data.sources is empty; name at least one source")
        at_least(self, 1, "max_seq_length", "rows_per_batch", "lookahead_rows")
        at_least(self, 0, "workers", "max_bad_fraction")


def at_least(config: Any, least: int, *names: str) -> None:
    """Raise a ValueError that names the first field below its least value."""
    for name in names:
        if not getattr(config, name) >= least:
            raise ValueError(f"{name}={getattr(config, name)} must be at least {least}")
