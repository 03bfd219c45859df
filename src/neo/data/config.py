"""What a run learns from: the fields of a recipe's `data`."""

import re
from dataclasses import dataclass
from typing import Any, Literal

from neo.data.records import CAPTION_PROMPT

TextUnit = Literal["line", "paragraph", "document"]
Kind = Literal["json", "parquet", "webdataset", "csv", "text", "datasets", "synthetic", "corpus", "memory"]


@dataclass
class SourceConfig:
    """One source of records: files, or a stream that is drawn."""

    kind: Kind | None = None
    """What the files are; told by the endings of their names if left out (`neo.data.sources`). Or drawn pictures
    (synthetic), or drawn plain texts for a language model (corpus); or records that Python holds (memory)."""
    weight: float = 1.0
    """Share of the samples, or of the tokens (`data.weight_by`), relative to the other sources."""
    sample: float = 1.0
    """Share of the records that is used: 0.5 is a half, always the same one. A name or path may end in %50 for it."""
    max_epochs: int | None = None
    """How often each record is used at most; a source that is used up leaves the stream. No limit by default."""
    mean_tokens: float | None = None
    """Tokens of a record on average, for `data.weight_by: tokens` without an index."""
    path: str | list[str] | None = None
    """A file, a folder of them, a pattern such as data/*.tar, a range as in data/{000..099}.tar, or a list of these."""
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
    fingerprint: str | None = None
    """Tells these records from others, so that a run goes on with the same ones only (kind memory)."""

    def __post_init__(self) -> None:
        if isinstance(self.path, str):
            self.path = self.take_percent(self.path)
        self._check_sample()
        if self.max_epochs is not None:
            at_least(self, 1, "max_epochs")
        if self.mean_tokens is not None:
            at_least(self, 1, "mean_tokens")
        without = ("synthetic", "corpus", "memory")
        if (self.kind in without) != (self.path is None):
            raise ValueError(
                f"a source of kind {self.kind!r} has path={self.path!r}: kinds {', '.join(without)} have none, any "
                "other needs one"
            )
        if self.families is not None and self.kind != "synthetic":
            raise ValueError(f"a source of kind {self.kind!r} has no families; only kind synthetic does")

    def take_percent(self, name: str) -> str:
        """`name` without a `%50` at its end, which becomes `sample`.

        Raises:
            ValueError: another share was given already.
        """
        bare, percent, share = name.rpartition("%")
        if not bare or not re.fullmatch(r"\d+(\.\d+)?", share):
            return name
        if self.sample != 1.0:
            raise ValueError(f"{name!r} ends in {percent}{share} but sample={self.sample} is given; give one of them")
        self.sample = float(share) / 100
        self._check_sample()
        return bare

    def _check_sample(self) -> None:
        if not 0 < self.sample <= 1:
            raise ValueError(f"sample={self.sample} must be above 0 and at most 1; weight makes records come often")


@dataclass
class DataConfig:
    """What is learned from and how it is laid out."""

    sources: dict[str, SourceConfig]
    """Sources by name."""
    weight_by: Literal["samples", "tokens"] = "samples"
    """What the weights of sources count."""
    index: str | None = None
    """Folder with an index of each source (`neo.data.index`), or the index of the only one; by default records are
    measured as they come."""
    max_seq_length: int = 512
    """Tokens of a packed row; longer samples are left out."""
    rows_per_batch: int = 8
    """Rows of one step, over all ranks together."""
    batch_by: Literal["rows", "samples"] = "rows"
    """What `rows_per_batch` counts. By samples, a step takes so many of them in as few rows as hold them, and the last
    step of an epoch of the only source takes what is left."""
    lookahead_rows: int = 64
    """Rows worth of samples that rows are chosen from."""
    max_bad_fraction: float = 0.01
    """Share of samples that may be too long or unreadable before the run stops."""
    workers: int = 1
    """Processes that draw and encode ahead; 0 does it in the training process."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("data.sources is empty; name at least one source")
        named: dict[str, SourceConfig] = {}
        for written, source in self.sources.items():
            name = source.take_percent(written)
            if name in named:
                raise ValueError(f"data.sources has {name!r} twice: %50 is not part of the name")
            named[name] = source
        self.sources = named
        at_least(self, 1, "max_seq_length", "rows_per_batch", "lookahead_rows")
        at_least(self, 0, "workers", "max_bad_fraction")


def at_least(config: Any, least: int, *names: str) -> None:
    """Raise a ValueError that names the first field below its least value."""
    for name in names:
        if not getattr(config, name) >= least:
            raise ValueError(f"{name}={getattr(config, name)} must be at least {least}")
