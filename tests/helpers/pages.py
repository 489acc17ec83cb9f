"""Pages from disk in a real browser, and what they must not do."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = (
    "no Chromium found: install one (Debian: apt-get install chromium), or name it by "
    "CHROMIUM=/path/to/it"
)


def launch(playwright: Playwright) -> Browser:
    """The browser of this machine, without a window."""
    # Continuous integration says so, aloud, where it cannot have one.
    if os.environ.get("WITHOUT_BROWSER"):
        pytest.skip("WITHOUT_BROWSER is set")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail(MISSING, pytrace=False)
    # Its sandbox needs rights that root and containers do not have.
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


class Watched:
    """A page, and what went wrong on it: errors, and requests that leave the folder."""

    def __init__(self, browser: Browser, folder: Path, **options: object) -> None:
        self.folder, self.faults = folder, []
        self.page: Page = browser.new_page(**options)
        self.page.set_default_timeout(10_000)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.faults.append("dialog"), dialog.dismiss()))
        self.page.on("request", self._asked)
        self.page.on("requestfailed", lambda request: self.faults.append(f"failed {request.url}"))

    def open(self, name: str, address: str = "") -> Page:
        """Open a file of the folder."""
        self.page.goto(f"{(self.folder / name).as_uri()}{address}")
        return self.page

    def _heard(self, message: object) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    def _asked(self, request: object) -> None:
        if not request.url.startswith((self.folder.as_uri(), "data:", "blob:")):
            self.faults.append(f"asks for {request.url}")
