import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neo.data.sources import ListSource, Source
from neo.data.tools.preview import preview, seen_picture, shown
from neo.processing.image import smart_resize
from neo.processing.processor import NeoProcessor

EVIL = '</p></article><script>document.title = "taken"</script><img src=x onerror="document.title = 1">'


class Page(HTMLParser):
    """The elements of a page, each with its attributes and the text right inside it."""

    VOID = ("meta", "img", "path")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[int] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.texts.append("")
        if tag not in self.VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]] += data

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        found = zip(self.elements, self.texts, strict=True)
        return [(attributes, text) for (name, attributes), text in found if name == tag]


@pytest.fixture
def source(records: Callable[..., Source], pictures: Path) -> Source:
    return records(
        [
            {"question": "What?", "answer": "It is noise,\nI say. 日本", "image": "photos/a.jpg", "family": "noise"},
            {"question": EVIL, "answer": f"No.{EVIL}\u202e\0", "family": EVIL},
            {"question": "Which?", "answer": "The first.", "images": ["photos/a.jpg", "photos/b.png"]},
            {"question": "What?", "answer": "Nothing.", "image": "photos/none.jpg", "family": "noise"},
        ]
    )


def test_tokens_that_carry_loss_are_marked_and_in_order(source: Source, processor: NeoProcessor) -> None:
    page = Page(preview([source], processor, "mine"))
    (first,) = [k for k, (tag, one) in enumerate(page.elements) if tag == "article" and one["data-family"] == "noise"][
        :1
    ]
    stop = next(k for k in range(first + 1, len(page.elements)) if page.elements[k][0] == "article")
    card = list(zip(page.elements[first:stop], page.texts[first:stop], strict=True))
    learned = "".join(text for (tag, _), text in card if tag == "mark")
    encoded = processor.encode(source[0].messages, share_pixels=True)
    assert learned.startswith("It is noise,↵\nI say.")
    assert learned.replace("…", "").endswith("日本<|im_end|>↵\n")
    marked = [one["title"] for (tag, one), _ in card if tag == "mark"]
    assert marked == [
        f"{place}: id {token}"
        for place, (token, label) in enumerate(zip(encoded.input_ids.tolist(), encoded.labels.tolist(), strict=True))
        if label == token
    ]
    asked = "".join(text for (tag, one), text in card if tag == "span" and "title" in one)
    assert asked == "<|im_start|>user↵\n<img></img>↵\nWhat?<|im_end|>↵\n<|im_start|>assistant↵\n"
    assert [text for (tag, one), text in card if one.get("class") == "place"] == ["picture 1: 6 x 5 = 30 tokens"]
    assert [one["class"] for (tag, one), _ in card if tag == "section"] == ["user", "assistant"]


def test_pictures_are_those_that_the_model_sees(pictures: Path, processor: NeoProcessor) -> None:
    images = processor.image_processor
    for name in ("a.jpg", "b.png"):
        with Image.open(pictures / name) as opened:
            picture = opened.convert("RGB")
        height, width = smart_resize(picture.height, picture.width, images.factor, images.min_pixels, images.max_pixels)
        encoded = processor.encode([{"role": "user", "content": "", "image": str(pictures / name)}])
        ((rows, columns),) = encoded.image_grid_hw.tolist()
        seen = seen_picture(encoded.pixel_values, rows, columns, images)
        assert np.array_equal(seen, picture.resize((width, height), Image.Resampling.BICUBIC))


def test_the_page_shows_pictures_grids_and_what_is_wrong(source: Source, processor: NeoProcessor) -> None:
    html = preview([source], processor, "mine", max_seq_length=60)
    page = Page(html)
    assert len(page.all("article")) == 4
    images = [one for one, _ in page.all("img")]
    assert [(one["width"], one["height"]) for one in images] == [("192", "160"), ("192", "160"), ("96", "128")]
    assert all(str(one["src"]).startswith("data:image/png;base64,") for one in images)
    grids = {one["class"]: one["d"] for one, _ in page.all("path")}  # those of the last picture
    assert grids["tokens"] == "M0 0H96M0 32H96M0 64H96M0 96H96M0 128H96M0 0V128M32 0V128M64 0V128M96 0V128"
    assert str(grids["patches"]).count("M") == 9 + 7
    errors = [text for one, text in page.all("p") if one.get("class") == "error"]
    lengths = [len(processor.encode(source[index].messages, share_pixels=True).input_ids) for index in range(3)]
    assert sum("left out of training" in text for text in errors) == sum(length > 60 for length in lengths) > 0
    assert any("none.jpg: cannot read the picture file" in text for text in errors)
    assert f"<b>{lengths[0]}</b> tokens: " in html


def test_nothing_from_data_becomes_markup(source: Source, processor: NeoProcessor) -> None:
    html = preview([source], processor, EVIL)
    page = Page(html)
    assert len(page.all("script")) == 1
    assert not any(name.startswith("on") or name == "style" for _, one in page.elements for name in one)
    assert all(
        str(one[name]).startswith("data:") for _, one in page.elements for name in ("src", "href") if name in one
    )
    assert [one["data-family"] for one, _ in page.all("article")] == ["noise", EVIL, "", "noise"]
    (rules,) = [one["content"] for one, _ in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert str(rules).startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "⟨U+202E⟩" in html
    assert "\u202e" not in html
    assert "\0" not in html


def test_characters_that_cannot_be_seen_have_a_number() -> None:
    assert shown("a\tb\nc\ud83d<") == "a⟨U+0009⟩b\nc⟨U+D83D⟩&lt;"


def test_a_message_that_cannot_be_encoded_has_a_card(processor: NeoProcessor) -> None:
    html = preview([ListSource([{"text": "half \ud83d"}], "list")], processor, "mine")
    assert "holds half a character" in html
    html.encode()


def test_large_pictures_are_jpeg(processor: NeoProcessor) -> None:
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 256, (700, 700, 3), dtype=np.uint8))
    processor = NeoProcessor(type(processor.image_processor)(), processor.tokenizer)
    page = Page(preview([ListSource([{"caption": "Noise.", "image": picture}])], processor, "mine"))
    assert [str(one["src"])[:16] for one, _ in page.all("img")] == ["data:image/jpeg;"]


def test_the_page_works(source: Source, tmp_path: Path, processor: NeoProcessor) -> None:
    """In a real browser where there is one; its script is looked at in any case."""
    html = preview([source], processor, "mine")
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    page = Page(html)
    names = [one["id"] for one, _ in page.all("select")]
    assert names == ["family", "source", "grid"]
    assert all(f'"{name}"' in page.all("script")[0][1] for name in names)
    chromium = shutil.which("chromium")
    if chromium is None:
        return
    address = (tmp_path / "page.html").as_uri() + "#family=noise&grid=patches"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    dump = subprocess.run([chromium, *options, address], capture_output=True, text=True, check=True).stdout
    assert '<span id="shown">2 of 4 records</span>' in dump
    assert len(re.findall(r"<article[^>]* hidden=", dump)) == 2
    assert '<body data-grid="patches">' in dump
    assert "<title>mine</title>" in dump
