"""Draw docs/figures/playground.png: the web page of `neo serve` with two answers of the small model.

python docs/figures/playground.py
"""

import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

IMAGES = Path(__file__).parents[2] / "examples" / "images"
TARGET = Path(__file__).with_name("playground.png")
QUESTIONS = ("Which shape is on the left?", "And on the right?")
PORT = 8765
URL = f"http://127.0.0.1:{PORT}"


def draw(browser: Browser, url: str, target: Path) -> None:
    page = browser.new_page(viewport={"width": 760, "height": 840})
    page.goto(url)
    page.get_by_label("Choose pictures").set_input_files(IMAGES / "two_shapes.png")
    for number, question in enumerate(QUESTIONS, 1):
        page.get_by_label("Question", exact=True).fill(question)
        page.get_by_role("button", name="Ask").click()
        expect(page.locator("#conversation .assistant")).to_have_count(number)
        expect(page.get_by_role("status")).to_have_text("The answer is complete.", timeout=60_000)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=target)
    page.close()
    with Image.open(target) as shot:  # few colours: a third of the bytes
        shot.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(target, optimize=True)


def main() -> None:
    with (
        subprocess.Popen([sys.executable, "-m", "neo", "serve", "--port", str(PORT)]) as server,
        sync_playwright() as playwright,
    ):
        wait_until_ready()
        draw(playwright.chromium.launch(executable_path=shutil.which("chromium")), URL, TARGET)
        server.terminate()
    print(TARGET)


def wait_until_ready() -> None:
    while True:
        try:
            urllib.request.urlopen(f"{URL}/health")
            return
        except OSError:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
