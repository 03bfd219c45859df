"""Data sets that Python already holds: lists of records, and those of the package `datasets`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neo.data.records import CAPTION_PROMPT, known_fields
from neo.data.sources.source import RecordSource


class ListSource(RecordSource):
    """Records in a list, or in anything else with a length and an item at every index."""

    def __init__(
        self,
        dataset: Any,
        name: str = "dataset",
        image_root: str | Path | None = None,
        caption_prompt: str = CAPTION_PROMPT,
    ) -> None:
        """Take the records as they are.

        Args:
            dataset: list of records, or a data set of the package `datasets`.
            name: name of the source.
            image_root: what relative picture paths are relative to; the working directory by default.
            caption_prompt: what the user asks where a record has only a caption.

        Raises:
            ValueError: it has splits, or no length.
        """
        super().__init__(name, [Items(dataset, name, Path())], image_root, caption_prompt)


class Items:
    """The records of a data set; those of the package `datasets` are read without decoding their pictures."""

    def __init__(self, dataset: Any, where: str, folder: Path) -> None:
        if isinstance(dataset, Mapping):
            raise ValueError(f"{where} has the splits {', '.join(map(str, dataset))}; give one of them")
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise ValueError(f"{where} is a {type(dataset).__name__}; records must have a length and an index each")
        self._where, self.folder = where, folder
        # A data set with a transform of its own is asked for what that makes.
        self._arrow = hasattr(dataset, "with_format") and dataset.format["type"] != "custom"
        if self._arrow:
            dataset = dataset.with_format("arrow", columns=known_fields(dataset.column_names, where))
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, index: int) -> tuple[Any, str]:
        item = self._dataset[index]
        return item.to_pylist()[0] if self._arrow else item, f"{self._where}, record {index} (from 0)"


def load_dataset(path: Path) -> Items:
    """A data set that `save_to_disk` of the package `datasets` wrote.

    Raises:
        ValueError: the package is missing, or the folder is none of its data sets, or one with several splits.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError("reading a data set from disk needs the package datasets: pip install datasets") from error
    try:
        dataset = datasets.load_from_disk(str(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no data set was saved in this folder by save_to_disk") from error
    return Items(dataset, str(path), path)
