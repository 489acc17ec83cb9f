"""A report of two small experiments whose rooms have hostile names, and a browser to open it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pages import Watched, launch
from playwright.sync_api import Browser, sync_playwright
from report_data import train, write_blocks

import infer
import report


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/, oof/ with the experiments one and two, submissions/one_tta; their reports in alone/,
    both/ and test/."""
    root = tmp_path_factory.mktemp("report")
    write_blocks(root / "data")
    train(root / "data", root / "oof", "one")
    train(root / "data", root / "oof", "two", "train.lr=0.01")
    for names, folder in ((["one"], "alone"), (["one", "two"], "both")):
        report.main([*names, "--oof", str(root / "oof"), "--output", str(root / folder)])
    places = ["--oof", str(root / "oof"), "--submissions", str(root / "submissions")]
    infer.main(["--experiment", "one", "--tta", *places])
    report.main(["--submission", "one_tta", *places, "--output", str(root / "test")])
    return root


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = launch(playwright)
        yield found
        found.close()


@pytest.fixture
def watched(browser: Browser) -> Iterator[Callable[..., Watched]]:
    """Opens a folder as a Watched page; at the end nothing must have gone wrong on it."""
    opened: list[Watched] = []

    def open_folder(folder: Path, **options: object) -> Watched:
        opened.append(
            Watched(browser, folder, **{"viewport": {"width": 1280, "height": 900}, **options})
        )
        return opened[-1]

    yield open_folder
    for one in opened:
        assert one.faults == []
        one.page.close()
