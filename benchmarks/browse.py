"""Drives a report in Chromium as a reader would, and says how long each step takes.

Loads the images' page, scrolls through all of it, looks for pictures that are not there in time,
follows a cell of the confusion matrix, opens an image and changes its layer. Fails for an error on
a page or a request that leaves the folder. Chromium is found by its name or by $CHROMIUM.

example:
  python benchmarks/browse.py oof/demo/report
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
SEEN = """[...document.querySelectorAll('#cards img')].filter((one) => {
  const box = one.getBoundingClientRect();
  return box.top < innerHeight && box.bottom > 0 && !(one.complete && one.naturalWidth);
}).length"""
STEP = 450  # Pixels, half a screen, each 50 ms.


@contextmanager
def timed(what: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - begun:.2f} s", flush=True)


def scroll(page: Page) -> None:
    """Scroll to the end; tells how often a picture was not there when it came into view."""
    steps = blank = 0
    while page.evaluate("scrollY + innerHeight < document.body.scrollHeight - 1"):
        page.mouse.wheel(0, STEP)
        page.wait_for_timeout(50)
        steps, blank = steps + 1, blank + (page.evaluate(SEEN) > 0)
    print(f"scrolling: a picture was missing in {blank} of {steps} steps", flush=True)


def drive(page: Page, folder: Path) -> None:
    with timed("images, until the first screen is drawn"):
        page.goto((folder / "images.html").as_uri())
        page.wait_for_function("document.querySelectorAll('#cards li').length > 0")
        page.wait_for_function(f"{SEEN} === 0")
    print(page.inner_text("#count"))
    scroll(page)
    with timed("scores"):
        page.goto((folder / "index.html").as_uri())
        page.wait_for_selector(".matrix a")
    with timed("from a cell of the confusion matrix to its images"):
        page.click(".matrix a.hit >> nth=3")
        page.wait_for_selector("#cards b")
    print(page.inner_text("#count"))
    with timed("an image with its arrays"):
        page.click("#cards button >> nth=0")
        page.wait_for_function("viewer.frame !== null")
    with timed("another layer"):
        page.keyboard.press("5")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="folder of a report of out-of-fold predictions")
    folder = parser.parse_args().report.resolve()
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda one: faults.append(one.text) if one.type == "error" else None)
        page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
        inside = (folder.as_uri(), "data:")
        page.on(
            "request",
            lambda one: None if one.url.startswith(inside) else faults.append(f"asks {one.url}"),
        )
        drive(page, folder)
        browser.close()
    sys.exit("\n".join(faults) if faults else 0)


if __name__ == "__main__":
    main()
