"""The web page, as a reader uses it: in a real Chromium without a window, against a server with the small model."""

import base64
import contextlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from serving_tools import ROOT, Served, until

from neo.serving import playground

IMAGES = ROOT / "examples" / "images"
KEY = "sixteen-or-more-characters"
PHONE = {"width": 320, "height": 640}
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.fail(
            "Chromium drives the tests of the page and is not here: install it, on Debian apt-get install chromium"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """`open_page(url, **options of a browser's context)`; what the browser itself complains about fails the test."""
    contexts, complaints = [], []

    def open_page(url: str, **options: object) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if foreign(request.url, url) else None)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def foreign(address: str, url: str) -> bool:
    return not address.startswith((url, "data:", "blob:"))


@pytest.fixture
def page(open_page: Callable[..., Page], common: Served) -> Page:
    return open_page(common.url)


def ask(page: Page, question: str) -> None:
    page.get_by_label("Question", exact=True).fill(question)
    page.get_by_role("button", name="Ask").click()


def answers(page: Page) -> Locator:
    return page.locator("#conversation .assistant p")


def complete(page: Page) -> None:
    expect(page.get_by_role("status")).to_have_text("The answer is complete.")


def bodies(page: Page) -> list[dict]:
    """What the page asks the server from now on."""
    sent: list[dict] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.method == "POST" else None)
    return sent


def picture_of(page: Page, body: dict) -> tuple[str, int, int]:
    """Type, width and height of the first picture of a request, as the browser decodes it."""
    url = body["messages"][0]["content"][0]["image_url"]["url"]
    size = page.evaluate(
        "async url => { const i = new Image(); i.src = url; await i.decode(); return [i.width, i.height] }", url
    )
    return url[5 : url.index(";")], *size


# --- asking ---


def test_a_picture_a_streamed_answer_and_a_second_turn(page: Page) -> None:
    sent = bodies(page)
    expect(page.locator("#model")).to_have_text("neo-demo")
    page.get_by_label("Choose pictures").set_input_files(IMAGES / "two_shapes.png")
    expect(page.get_by_role("img", name="two_shapes.png")).to_be_visible()
    ask(page, "Which shape is on the left?")
    complete(page)
    expect(answers(page)).to_have_text(["square"])
    expect(page.locator("#pictures li")).to_have_count(0)
    page.get_by_label("Question", exact=True).fill("And on the right?")
    page.keyboard.press("Enter")
    expect(answers(page)).to_have_count(2)
    complete(page)
    first, second = sent
    assert first["stream"] is True
    assert first["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == "square"
    page.get_by_role("button", name="New conversation").click()
    expect(answers(page)).to_have_count(0)
    ask(page, "Hello")
    expect(answers(page)).to_have_count(1)
    complete(page)
    assert len(sent[2]["messages"]) == 1


@contextlib.contextmanager
def step_by_step(served: Served) -> Iterator[threading.Semaphore]:
    """The engine makes a step, one token of an answer, for each `release()`."""
    engine, steps = served.engine, threading.Semaphore(0)
    step = engine._step
    engine._step = lambda: (steps.acquire(), step())  # type: ignore[method-assign]
    try:
        yield steps
    finally:
        engine._step = step  # type: ignore[method-assign]
        steps.release(1000)


def test_an_answer_grows_and_can_be_stopped(open_page: Callable[..., Page], serve: Callable) -> None:
    with serve() as served, step_by_step(served) as steps:
        page = open_page(served.url)
        page.get_by_label("Choose pictures").set_input_files(IMAGES / "receipt.png")
        for stop in ("Enter", "Escape"):
            ask(page, "Extract the receipt as JSON.")
            steps.release(4)
            expect(answers(page).last).not_to_be_empty()
            before = answers(page).last.text_content() or ""
            expect(page.locator("#conversation")).to_have_attribute("aria-busy", "true")
            steps.release(4)
            expect(answers(page).last).not_to_have_text(before)
            assert (answers(page).last.text_content() or "").startswith(before)
            expect(page.get_by_role("button", name="Stop")).to_be_focused()
            assert served.engine.running
            page.keyboard.press(stop)
            expect(page.get_by_role("status")).to_have_text("Stopped.")
            expect(page.get_by_label("Question", exact=True)).to_be_focused()
            expect(page.locator("#conversation")).to_have_attribute("aria-busy", "false")
            until(lambda: (steps.release(), served.at_rest())[1])
        expect(answers(page)).to_have_count(2)


def test_what_is_said_is_text_and_never_html(page: Page) -> None:
    said = "<img src=x onerror=alert(1)><b>bold</b>"
    event = {"choices": [{"delta": {"content": said}}]}
    body = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    ask(page, said)
    complete(page)
    expect(page.locator("#conversation p")).to_have_text([said, said])
    expect(page.locator("#conversation :is(img, b)")).to_have_count(0)


def test_a_stream_that_breaks_off_is_told_and_what_came_stays(page: Page) -> None:
    body = 'data: {"choices": [{"delta": {"content": "half an"}}]}\n\n'
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    ask(page, "Hello")
    expect(page.get_by_role("alert")).to_contain_text("connection to the server was lost")
    expect(answers(page)).to_have_text(["half an"])


def test_settings_are_sent(page: Page) -> None:
    sent = bodies(page)
    page.get_by_text("Settings").click()
    numbers = {"temperature": ("Temperature", 0.5), "top_p": ("Top p", 0.9), "max_tokens": ("Most tokens", 3)}
    for label, value in numbers.values():
        page.get_by_label(label).fill(str(value))
    page.get_by_label("System prompt").fill("Be brief.")
    ask(page, "Hello")
    complete(page)
    assert {name: sent[0][name] for name in numbers} == {name: value for name, (_, value) in numbers.items()}
    assert sent[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    page.get_by_label("Temperature").fill("3")
    ask(page, "Hello")
    expect(page.get_by_role("alert")).to_contain_text("Temperature: ")
    expect(page.get_by_label("Temperature")).to_be_focused()
    assert len(sent) == 1


# --- pictures ---


def test_a_picture_is_pasted_dropped_and_taken_away(page: Page) -> None:
    give = """([data, name, way]) => {
        const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0));
        const given = new DataTransfer();
        given.items.add(new File([bytes], name, {type: "image/png"}));
        const what = way === "paste" ? new ClipboardEvent(way, {clipboardData: given, bubbles: true})
                                     : new DragEvent(way, {dataTransfer: given, bubbles: true});
        document.querySelector("#question").dispatchEvent(what);
    }"""
    data = (IMAGES / "circle.png").read_bytes()
    for way in ("paste", "drop"):
        page.evaluate(give, [base64.b64encode(data).decode(), f"{way}.png", way])
        expect(page.get_by_role("img", name=f"{way}.png")).to_be_visible()
    page.get_by_role("button", name="Remove paste.png").click()
    expect(page.locator("#pictures img")).to_have_count(1)
    ask(page, "What color is the circle?")
    complete(page)
    expect(answers(page)).to_have_text(["red"])


def test_a_camera_is_offered(page: Page) -> None:
    assert page.get_by_label("Take a picture").get_attribute("capture") == "environment"
    page.get_by_label("Take a picture").set_input_files(IMAGES / "circle.png")
    expect(page.locator("#pictures img")).to_have_count(1)


@pytest.mark.parametrize(("kind", "name"), [("image/jpeg", "wide.jpg"), ("image/png", "wide.png")])
def test_large_pictures_are_scaled_before_they_are_sent(page: Page, tmp_path: Path, kind: str, name: str) -> None:
    Image.new("RGB", (4096, 1000), "red").save(tmp_path / name)
    sent = bodies(page)
    page.get_by_label("Choose pictures").set_input_files(tmp_path / name)
    expect(page.locator("#pictures img")).to_have_count(1)
    ask(page, "What color is it?")
    complete(page)
    assert picture_of(page, sent[0]) == (kind, 2048, 500)


# --- where it looked ---


def test_attention_of_a_word_is_drawn_over_the_picture(page: Page) -> None:
    sent = bodies(page)
    page.get_by_label("Choose pictures").set_input_files(IMAGES / "two_shapes.png")
    for number, (question, side) in enumerate(
        (("Which shape is on the left?", "left"), ("And on the right?", "right"))
    ):
        ask(page, question)
        expect(answers(page)).to_have_count(number + 1)
        complete(page)
        page.get_by_role("button", name="Where did it look?").last.focus()
        page.keyboard.press("Enter")
        expect(answers(page).last.get_by_role("button").first).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("canvas")).to_have_count(1)
        expect(page.get_by_role("status")).to_contain_text("% of the attention of")
        assert brighter_side(page) == side
        assert sent[-1]["answer"] == answers(page).last.text_content()
        assert covers(page)
    answers(page).last.get_by_role("button").first.click()  # once more: taken away
    expect(page.locator("canvas")).to_have_count(0)
    assert [message["role"] for message in sent[-1]["messages"]] == ["user", "assistant", "user"]


def brighter_side(page: Page) -> str:
    """Where the drawn attention is, weighed."""
    return page.locator("canvas").evaluate(
        """one => {
            const {data} = one.getContext("2d").getImageData(0, 0, one.width, one.height), sides = {left: 0, right: 0};
            for (let i = 3; i < data.length; i += 4)
                sides[((i - 3) / 4) % one.width < one.width / 2 ? "left" : "right"] += data[i];
            return sides.left > sides.right ? "left" : "right";
        }"""
    )


def covers(page: Page) -> bool:
    """Whether what is drawn lies exactly over the picture."""
    return page.locator("canvas").bounding_box() == page.locator("#conversation img").bounding_box()


def test_words_are_counted_as_the_server_counts_them(page: Page) -> None:
    said = "a 🙂 circle"
    events = f"data: {json.dumps({'choices': [{'delta': {'content': said}}]})}\n\ndata: [DONE]\n\n"
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=events, content_type="text/event-stream"))
    page.get_by_label("Choose pictures").set_input_files(IMAGES / "circle.png")
    ask(page, "What?")
    complete(page)
    page.get_by_role("button", name="Where did it look?").click()
    with page.expect_request("**/attention") as asked:
        page.get_by_role("button", name="circle", exact=True).click()
    assert (asked.value.post_data_json["start"], asked.value.post_data_json["stop"]) == (4, 10)
    expect(page.locator("canvas")).to_have_count(1)


def test_without_a_picture_there_is_nowhere_to_look(page: Page) -> None:
    ask(page, "Hello")
    complete(page)
    expect(page.get_by_role("button", name="Where did it look?")).to_have_count(0)


# --- what goes wrong ---


def test_a_file_that_is_no_picture(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    page.get_by_label("Choose pictures").set_input_files(tmp_path / "notes.png")
    expect(page.get_by_role("alert")).to_contain_text("notes.png cannot be read as a picture")


def test_the_servers_sentence_is_shown_and_the_question_comes_back(page: Page) -> None:
    page.get_by_label("Choose pictures").set_input_files(IMAGES / "circle.png")
    ask(page, "word " * 20_000)
    expect(page.get_by_role("alert")).to_contain_text("context")
    expect(page.get_by_label("Question", exact=True)).to_have_value(("word " * 20_000).strip())
    expect(page.locator("#pictures img")).to_have_count(1)
    ask(page, "What color is the circle?")
    complete(page)
    expect(page.get_by_role("alert")).to_be_empty()
    expect(answers(page)).to_have_text(["red"])


def test_a_key_is_asked_for_and_forgotten_with_the_tab(open_page: Callable[..., Page], serve: Callable) -> None:
    with serve(api_keys=(KEY,)) as served:
        page = open_page(served.url)
        expect(page.get_by_role("alert")).to_contain_text("a valid API key is needed")
        page.get_by_label("API key").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_have_text("neo-demo")
        expect(page.get_by_role("alert")).to_be_empty()
        ask(page, "Hello")
        complete(page)
        assert page.evaluate("JSON.stringify(localStorage)") == "{}"
        assert page.context.cookies() == []
        for name in ("Copy as curl", "Copy as Python"):
            page.context.grant_permissions(["clipboard-read", "clipboard-write"])
            page.get_by_role("button", name=name).click()
            expect(page.get_by_role("status")).to_contain_text("Copied")
            assert KEY not in page.evaluate("navigator.clipboard.readText()")


# --- programs ---


def test_what_is_copied_runs(page: Page, tmp_path: Path) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_label("Choose pictures").set_input_files(IMAGES / "circle.png")
    ask(page, "What color is the circle?")
    complete(page)
    said = {}
    for name, program in (("curl", ["bash"]), ("Python", [sys.executable])):
        page.get_by_role("button", name=f"Copy as {name}").click()
        expect(page.get_by_role("status")).to_have_text(f"Copied as {name}.")
        copied = page.evaluate("navigator.clipboard.readText()")
        environment = {"PATH": os.environ["PATH"]}
        done = subprocess.run(program, input=copied, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout
    assert '"content": "red"' in said["curl"]
    assert said["curl"].endswith("data: [DONE]\n\n")
    assert said["Python"] == "red\n"


# --- how it looks ---


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_as_the_reader_likes(open_page: Callable[..., Page], common: Served, scheme: str) -> None:
    page = open_page(common.url, color_scheme=scheme)
    colors = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    page_light, ink_light = (sum(int(part) for part in color[4:-1].split(",")) for color in colors)
    assert (page_light > ink_light) is (scheme == "light")


def test_nothing_is_wider_than_a_phone(open_page: Callable[..., Page], common: Served) -> None:
    page = open_page(common.url, viewport=PHONE, has_touch=True, is_mobile=True)
    page.get_by_label("Choose pictures").set_input_files([IMAGES / "circle.png", IMAGES / "receipt.png"])
    expect(page.locator("#pictures img")).to_have_count(2)
    page.get_by_text("Settings").click()
    ask(page, "x" * 200)
    complete(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_everything_is_reached_by_keyboard_in_its_order(page: Page) -> None:
    page.get_by_label("Question", exact=True).focus()
    reached = []
    for _ in range(4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert reached == ["choose", "camera", "send", "Settings"]
    for shown in ("#send", "label[for=camera]", "label[for=choose]"):
        page.keyboard.press("Shift+Tab")
        assert page.locator(shown).evaluate("one => getComputedStyle(one).outlineStyle") == "solid"


def test_every_field_has_a_name(page: Page) -> None:
    page.get_by_text("Settings").click()
    for field in page.locator("input, textarea, button:visible").all():
        name = field.evaluate("one => one.labels?.length ? one.labels[0].textContent : one.textContent")
        assert name.strip(), field


def test_the_picture_of_the_page_can_be_drawn(browser: Browser, common: Served, tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "figures" / "playground.py"))
    script["draw"](browser, common.url, tmp_path / "drawn.png")
    with Image.open(tmp_path / "drawn.png") as drawn, Image.open(script["TARGET"]) as committed:
        assert drawn.size == committed.size
    assert script["TARGET"].stat().st_size < 200_000


# --- headers ---


def test_nothing_else_gets_into_the_page(common: Served) -> None:
    for route in playground.FILES:
        response = common.http.get(route)
        assert response.status_code == 200
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
    assert common.http.get("/playground/../playground/__init__.py").status_code == 404
    assert httpx2.get(f"{common.url}/playground/").status_code == 404


def test_the_page_says_where_its_files_are() -> None:
    html = playground.FILES["/"].read_text(encoding="utf-8")
    for name in ("style.css", "page.js"):
        assert f'"playground/{name}"' in html
        assert f"/playground/{name}" in playground.FILES
