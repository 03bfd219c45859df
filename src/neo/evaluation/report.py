"""An evaluation as a page: numbers, charts, and every question with its pictures and answer, the worst first.

The page is one file that needs no network, and its rules forbid it any. It is made as that of `neo data preview` is,
and has its looks.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from neo.data.tools.preview import inline_hash, shown
from neo.evaluation.metrics import METRICS
from neo.evaluation.questions import Questions
from neo.evaluation.result import Result, wrong_first
from neo.evaluation.scoring import Row
from neo.evaluation.summary import is_share, written
from neo.processing.picture import load_image

MOST = 400
"""Questions on the page; of more, the worst of each family."""
SIDE = 320
"""Pixels of a picture's longer side on the page."""
BINS = 24
"""Bars of the chart of latencies."""


def report(result: Result, questions: Questions) -> str:
    """The page, as HTML.

    Args:
        result: what came out.
        questions: what was asked, in the same order: where the pictures are.
    """
    metric = next(iter(result.summary["metrics"]))
    lower = metric in METRICS and METRICS[metric].lower_is_better
    places = _spread(wrong_first(result.rows, metric, lower), result.rows)
    cards = [_card(result.rows[place], metric, lower, questions[place].pictures) for place in places]
    style = _file("neo.data.tools", "preview.css") + _file(__package__, "report.css")
    script = _file(__package__, "report.js")
    families = sorted({row["family"] for row in result.rows if row["family"]})
    return Template(_file(__package__, "report.html")).substitute(
        rules=f"default-src 'none'; img-src data:; style-src {inline_hash(style)}; script-src {inline_hash(script)}",
        title=shown(f"{result.summary['model']} on {result.summary['data']}"),
        style=style,
        script=script,
        asked=len(result.rows),
        number=len(cards),
        metric=shown(metric),
        numbers=_numbers(result.summary),
        charts=_family_chart(result.summary, metric) + _latency_chart(result.rows),
        families="".join(f'<option value="{shown(name)}">{shown(name)}</option>' for name in families),
        cards="".join(cards),
    )


def _file(package: str | None, name: str) -> str:
    return files(package or "").joinpath(name).read_text("utf-8")


def _spread(places: Sequence[int], rows: Sequence[Row]) -> list[int]:
    """The first places, as many of each family as there is room for."""
    if len(places) <= MOST:
        return list(places)
    taken: dict[str, int] = {}
    ranked = []
    for rank, place in enumerate(places):
        taken[rows[place]["family"]] = taken.get(rows[place]["family"], 0) + 1
        ranked.append((taken[rows[place]["family"]], rank, place))
    chosen = sorted(ranked)[:MOST]
    return [place for _, _, place in sorted(chosen, key=lambda one: one[1])]


def _numbers(summary: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{shown(name)}</td><td>{shown(written(name, one['all']))}</td><td>{one['all']['questions']}</td></tr>"
        for name, one in summary["metrics"].items()
    )
    return f"<table><tr><th>metric</th><th>all (95 % interval)</th><th>questions</th></tr>{rows}</table>"


def _card(row: Row, metric: str, lower_is_better: bool, pictures: Iterable[Any]) -> str:
    kind = _kind(row["scores"].get(metric), metric, lower_is_better)
    expected = " | ".join(dict.fromkeys(row["expected"]))
    scores = ", ".join(f"{name} {one:.3g}" for name, one in row["scores"].items())
    family = f" · {shown(row['family'])}" if row["family"] else ""
    cut = "" if row["complete"] else " · cut off"
    return (
        f'<article class="{kind}" data-family="{shown(row["family"])}" data-kind="{kind}">'
        f"<h2>{shown(row['where'])}</h2><p>{shown(scores)}{family} · {row['seconds']:.2f} s{cut}</p>"
        f'<div class="pictures">{"".join(map(_figure, pictures))}</div>'
        f"<dl><dt>question</dt><dd>{shown(row['question'])}</dd><dt>expected</dt><dd>{shown(expected)}</dd>"
        f'<dt>answer</dt><dd class="answer">{shown(row["answer"])}</dd></dl></article>\n'
    )


def _kind(value: float | None, metric: str, lower_is_better: bool) -> str:
    """Right or wrong, where the metric has a value that is right and the record has the metric."""
    if value is None or not (is_share(metric) or lower_is_better):
        return "neutral"
    return "right" if (value <= 0 if lower_is_better else value >= 1) else "wrong"


def _figure(source: Any) -> str:
    picture = load_image(source).convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=82)
    address = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
    width, height = picture.size
    return f'<figure><img src="{address}" alt="picture" width="{width}" height="{height}"></figure>'


def _family_chart(summary: Mapping[str, Any], metric: str) -> str:
    """A bar for each family with its interval, as SVG."""
    families, everything = summary["metrics"][metric]["families"], summary["metrics"][metric]["all"]
    if len(families) < 2:
        return ""
    numbers = families | {"all": everything}
    most = 1.0 if is_share(metric) else max(one["high"] for one in numbers.values()) or 1.0
    bars = []
    for line, (family, one) in enumerate(numbers.items()):
        y = 22 * line
        value, low, high = (400 * one[key] / most for key in ("value", "low", "high"))
        bars.append(
            f'<text x="190" y="{y + 14}" text-anchor="end">{shown(family or "(none)")}</text>'
            f'<rect x="200" y="{y + 3}" width="{value:.1f}" height="15"/>'
            f'<path d="M{200 + low:.1f} {y + 10.5}H{200 + high:.1f}"/>'
            f'<text x="612" y="{y + 14}">{shown(written(metric, one))}</text>'
        )
    return _chart(f"{metric} by family", 800, 22 * len(numbers), "".join(bars))


def _latency_chart(rows: Sequence[Row]) -> str:
    """How often an answer took how long, as SVG."""
    counts, edges = np.histogram([row["seconds"] for row in rows], bins=BINS)
    width = 600 / BINS
    bars = "".join(
        f'<rect x="{place * width:.1f}" y="{100 - 100 * count / counts.max():.1f}" width="{width - 2:.1f}" '
        f'height="{100 * count / counts.max():.1f}"><title>{count} in {low:.2f} to {high:.2f} s</title></rect>'
        for place, (count, low, high) in enumerate(zip(counts.tolist(), edges[:-1], edges[1:], strict=True))
    )
    ends = (
        f'<text x="0" y="118">{edges[0]:.2f} s</text><text x="600" y="118" text-anchor="end">{edges[-1]:.2f} s</text>'
    )
    return _chart("Seconds of an answer", 600, 124, bars + ends)


def _chart(title: str, width: int, height: int, content: str) -> str:
    box = f'viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{shown(title)}"'
    return f'<figure class="chart"><figcaption>{shown(title)}</figcaption><svg {box}>{content}</svg></figure>'
