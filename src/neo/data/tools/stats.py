"""How much data there is: tokens, pictures, turns, families, by source. Of picture files only the heads are read."""

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neo.data.sources import Source
from neo.data.tools.walk import Track, some, untracked, walk, where
from neo.processing.image import shared_max_pixels, smart_resize
from neo.processing.processor import NeoProcessor

JSON, PNG = "stats.json", "stats.png"
BINS = 40
"""Bars of the histogram of lengths, equally wide in their logarithm."""
MOST_BARS = 12
"""Families, sources and counts that are drawn, the largest first."""
NUMBERS = ("tokens", "learned", "picture_tokens", "turns", "pictures")
"""What is known of each record. `turns` counts the answers."""


class Stats:
    """The numbers of all records that could be read."""

    def __init__(self) -> None:
        self.records = {name: array("q") for name in ("source", "family", *NUMBERS)}
        """A column each; sources and families by number."""
        self.sources: dict[str, int] = {}
        self.families: dict[str, int] = {}
        self.sizes = array("I")
        """Width and height of every picture in pixels, as in its file."""
        self.unreadable = 0
        self.first_unreadable = ""

    def add(self, source: str, family: str, sizes: Iterable[tuple[int, int]], **numbers: int) -> None:
        """Count one record; `numbers` are named as in `NUMBERS`."""
        names = {"source": (self.sources, source), "family": (self.families, family)}
        codes = {column: known.setdefault(name, len(known)) for column, (known, name) in names.items()}
        for column, value in {**codes, **numbers}.items():
            self.records[column].append(value)
        for size in sizes:
            self.sizes.extend(size)

    def to_dict(self) -> dict[str, Any]:
        """The report, for JSON."""
        columns = {name: np.asarray(column) for name, column in self.records.items()}
        width, height = np.asarray(self.sizes).reshape(-1, 2).T
        edges, counts = histogram(columns["tokens"])
        return {
            "unreadable": self.unreadable,
            "all": _summary(columns),
            "sources": _by(columns, "source", self.sources),
            "families": _by(columns, "family", self.families),
            "pictures_per_record": _counts(columns["pictures"]),
            "turns": _counts(columns["turns"]),
            "picture_sizes": {"width": _spread(width), "height": _spread(height)},
            "length_histogram": {"edges": edges.tolist(), "records": counts.tolist()},
        }

    def draw(self, path: Path, title: str, bounds: tuple[int, int]) -> None:
        """Draw the report as a PNG; `bounds` are the pixels between which pictures are resized.

        Raises:
            ValueError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ValueError("drawing statistics needs matplotlib: pip install 'neo-vlm[train]'") from error
        report = self.to_dict()
        figure = Figure(figsize=(13, 7.5), layout="constrained")
        figure.suptitle(_short(title, 100))
        lengths, sizes, families, pictures, turns, sources = figure.subplots(2, 3).flat
        edges, counts = (np.array(report["length_histogram"][name]) for name in ("edges", "records"))
        lengths.bar(edges[:-1], counts, np.diff(edges), align="edge", color="tab:blue")
        lengths.set(title="length of records", xlabel="tokens", ylabel="records", xscale="log")
        _plain(lengths.xaxis)
        _draw_sizes(sizes, np.asarray(self.sizes).reshape(-1, 2), bounds)
        _draw_bars(families, "families", {name or "(none)": one["records"] for name, one in report["families"].items()})
        _draw_bars(pictures, "pictures in a record", report["pictures_per_record"], by_size=False)
        _draw_bars(turns, "answers in a record", report["turns"], by_size=False)
        _draw_sources(sources, report["sources"])
        figure.savefig(path, dpi=110)


def stats(
    sources: Sequence[Source],
    processor: NeoProcessor,
    indices: Sequence[Sequence[int]] | None = None,
    workers: int = 0,
    track: Track = untracked,
) -> Stats:
    """Measure records.

    Args:
        sources: where the records come from.
        processor: as in training; lengths depend on it.
        indices: the records of each source; all by default.
        workers: processes; 0 is this one alone.
        track: shows the progress.

    Raises:
        ValueError: no record can be read; the sentence tells why the first cannot.
    """
    chosen = [some(source) for source in sources] if indices is None else indices
    found = Stats()
    for numbers in walk(sources, chosen, _Measure(processor), workers, track):
        if isinstance(numbers, str):
            found.unreadable += 1
            found.first_unreadable = found.first_unreadable or numbers
        else:
            found.add(**numbers)
    if not found.records["tokens"]:
        raise ValueError(f"none of {found.unreadable} records can be read; the first: {found.first_unreadable}")
    return found


def write(found: Stats, folder: Path, title: str, bounds: tuple[int, int]) -> None:
    """Write the report as `stats.json` and `stats.png` into a folder, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JSON).write_text(json.dumps({"title": title, **found.to_dict()}, indent=1, ensure_ascii=False) + "\n")
    found.draw(folder / PNG, title, bounds)


class _Measure:
    """The numbers of one record, or what is wrong with it."""

    def __init__(self, processor: NeoProcessor) -> None:
        self.processor = processor

    def __call__(self, source: Source, index: int) -> dict[str, Any] | str:
        try:
            record = source[index]
        except ValueError as error:
            return str(error)
        try:
            measured = self.processor.measure(record.messages, share_pixels=True)
        except ValueError as error:
            return f"{where(record)}: {error}"
        return {
            "source": source.name,
            "family": record.family,
            "tokens": measured.tokens,
            "learned": measured.labelled,
            "picture_tokens": self._picture_tokens(measured.sizes),
            "turns": sum(message["role"] == "assistant" for message in record.messages),
            "pictures": len(measured.sizes),
            "sizes": measured.sizes,
        }

    def _picture_tokens(self, sizes: Sequence[tuple[int, int]]) -> int:
        images = self.processor.image_processor
        limit = shared_max_pixels(images.max_pixels, images.min_pixels, len(sizes))
        resized = (smart_resize(height, width, images.factor, images.min_pixels, limit) for width, height in sizes)
        return sum(height * width for height, width in resized) // images.factor**2


def histogram(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges (whole numbers of tokens, further and further apart) and counts of a histogram of lengths."""
    edges = np.unique(np.geomspace(tokens.min(), tokens.max() + 1, BINS + 1).round().astype(np.int64))
    return edges, np.histogram(tokens, edges)[0]


def _summary(columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    totals = {name: int(columns[name].sum()) for name in ("learned", "picture_tokens", "pictures")}
    return {"records": len(columns["tokens"]), "tokens": _spread(columns["tokens"]), **totals}


def _spread(values: np.ndarray) -> dict[str, float] | None:
    """Sum, mean and quantiles; None of nothing."""
    if not len(values):
        return None
    quantiles = dict(zip(("min", "median", "p90", "p99", "max"), (0, 0.5, 0.9, 0.99, 1), strict=True))
    found = {name: float(np.quantile(values, share)) for name, share in quantiles.items()}
    return {"sum": int(values.sum(dtype=np.int64)), "mean": float(values.mean()), **found}


def _by(columns: Mapping[str, np.ndarray], column: str, names: Mapping[str, int]) -> dict[str, Any]:
    """A summary for each value of a column, that with most records first."""
    masks = {name: columns[column] == code for name, code in names.items()}
    found = {name: _summary({key: values[mask] for key, values in columns.items()}) for name, mask in masks.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1]["records"]))


def _counts(values: np.ndarray) -> dict[str, int]:
    """How many records have 0, 1, 2, ... of something."""
    return {str(value): int(count) for value, count in enumerate(np.bincount(values)) if count}


def _draw_bars(axes: Any, title: str, counts: Mapping[str, int], by_size: bool = True) -> None:
    shown = sorted(counts, key=lambda name: -counts[name])[:MOST_BARS]
    shown = shown if by_size else sorted(shown, key=int)
    axes.barh([_short(name) for name in shown], [counts[name] for name in shown], color="tab:blue")
    axes.invert_yaxis()
    axes.set(title=title, xlabel="records")


def _draw_sources(axes: Any, sources: Mapping[str, Any]) -> None:
    """Tokens of each source: of pictures, learned, and others."""
    shown = dict(list(sources.items())[:MOST_BARS])
    picture = np.array([one["picture_tokens"] for one in shown.values()])
    learned = np.array([one["learned"] for one in shown.values()])
    rest = np.array([one["tokens"]["sum"] for one in shown.values()]) - picture - learned
    names = [_short(name) for name in shown]
    axes.barh(names, picture, color="tab:blue", label="of pictures")
    axes.barh(names, learned, left=picture, color="tab:orange", label="learned")
    axes.barh(names, rest, left=picture + learned, color="tab:gray", label="other text")
    axes.invert_yaxis()
    axes.set(title="sources", xlabel="tokens")
    axes.legend()


def _draw_sizes(axes: Any, sizes: np.ndarray, bounds: tuple[int, int]) -> None:
    """Pictures by width and height, and the areas between which they are resized."""
    axes.set(title="pictures", xlabel="width in pixels", ylabel="height in pixels")
    if not len(sizes):
        axes.text(0.5, 0.5, "no pictures", ha="center", va="center", transform=axes.transAxes)
        return
    axes.hexbin(*sizes.T, gridsize=25, xscale="log", yscale="log", mincnt=1, bins="log", cmap="viridis")
    _plain(axes.xaxis)
    _plain(axes.yaxis)
    width = np.geomspace(sizes[:, 0].min() / 2, sizes[:, 0].max() * 2, 100)
    for pixels, name in zip(bounds, ("min_pixels", "max_pixels"), strict=True):
        axes.plot(width, pixels / width, color="tab:red", linewidth=1, linestyle="--")
        axes.annotate(name, (width[-1], pixels / width[-1]), color="tab:red", ha="right", va="bottom", fontsize=8)


def _plain(axis: Any) -> None:
    """Whole numbers on a logarithmic axis."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:,.0f}")
    axis.set_minor_formatter(NullFormatter())


def _short(name: str, most: int = 24) -> str:
    """A name that fits, and in which matplotlib sees no formula."""
    return (name if len(name) <= most else name[: most - 1] + "…").replace("$", r"\$")
