"""The page of an evaluation: what is on it, that it holds anybody's text, and its filters in a real browser."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from answering import Parrot, knows, write_colors
from playwright.sync_api import Page, sync_playwright

import neo
from neo.evaluation import report as report_module
from neo.evaluation.questions import open_questions
from neo.evaluation.report import report

EVIL = '</dd></article><script>document.title = "taken"</script><img src=x onerror="document.title = 1">'


def page_of(folder: Path, right: int = 4, evil: bool = False) -> Path:
    """The report of a model that knows the first so many of twelve colours."""
    out = folder / "out"
    say = knows(right)
    parrot = Parrot(lambda text: EVIL if evil else say(text), EVIL if evil else "parrot")
    neo.evaluate(parrot, write_colors(folder, 12), output=out)
    return out / "report.html"


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("Chromium tests the page and is not here: install it, on Debian apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, timeout=120_000)
        yield browser.new_page()
        browser.close()


def test_the_worst_come_first_with_their_pictures(tmp_path: Path) -> None:
    page = page_of(tmp_path).read_text()
    kinds = re.findall(r'<article class="(\w+)"', page)
    assert kinds == ["wrong"] * 8 + ["right"] * 4
    assert page.count('<img src="data:image/jpeg;base64,') == 12
    assert page.count('<figure class="chart">') == 2
    assert "<td>accuracy</td><td>33.3% (" in page
    assert "http" not in re.sub(r'http-equiv|aria-label="[^"]*"', "", page)


def test_a_rate_of_errors_is_worst_where_it_is_high(tmp_path: Path) -> None:
    data = write_colors(tmp_path, 6)
    result = neo.evaluate(Parrot(knows(4)), data, ["cer"])
    kinds = re.findall(r'<article class="(\w+)"', report(result, open_questions(data)))
    assert kinds == ["wrong"] * 2 + ["right"] * 4


def test_what_is_neither_right_nor_wrong_is_not_called_so(tmp_path: Path) -> None:
    records = [{"question": f"a b c d{place}?", "answer": "a b c d0?", "metric": "bleu"} for place in range(2)]
    result = neo.evaluate(Parrot(str), records, ["bleu"])
    kinds = re.findall(r'<article class="(\w+)"', report(result, open_questions(records)))
    assert kinds == ["neutral"] * 2  # BLEU has no value that is right
    records = [{"question": "a", "answer": "b"}, {"question": "a", "answer": "a", "metric": "cer"}]
    result = neo.evaluate(Parrot(str), records)
    kinds = re.findall(r'<article class="(\w+)"', report(result, open_questions(records)))
    assert kinds == ["wrong", "neutral"]  # the second has no accuracy


def test_of_many_questions_each_family_has_its_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "MOST", 6)
    page = page_of(tmp_path, right=0).read_text()
    families = re.findall(r'data-family="([^"]*)"', page)
    assert sorted(families) == ["family 0"] * 3 + ["family 1"] * 3
    assert "12 questions were asked; 6 are below" in page


def test_filters(tmp_path: Path, browser_page: Page) -> None:
    browser_page.goto(page_of(tmp_path).as_uri())
    shown = browser_page.locator("#shown")
    assert shown.inner_text() == "12 of 12 questions"
    browser_page.select_option("#kind", "wrong")
    assert shown.inner_text() == "8 of 12 questions"
    browser_page.select_option("#family", "family 1")
    assert shown.inner_text() == "4 of 12 questions"
    browser_page.fill("#text", "PICTURE 7")
    assert shown.inner_text() == "1 of 12 questions"
    assert browser_page.locator("article:visible").inner_text().count("pink") == 1
    browser_page.reload()
    assert shown.inner_text() == "1 of 12 questions"  # the address keeps the view


def test_answers_are_text(tmp_path: Path, browser_page: Page) -> None:
    complaints: list[str] = []
    browser_page.on("console", lambda message: complaints.append(message.text))
    browser_page.goto(page_of(tmp_path, evil=True).as_uri())
    assert browser_page.title() == f"{EVIL} on colors"
    assert browser_page.locator("article").count() == 12
    assert browser_page.locator(".answer").first.inner_text() == EVIL
    assert complaints == []
