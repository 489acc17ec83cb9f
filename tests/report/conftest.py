"""A report of two small experiments whose rooms have hostile names, and a browser to open it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pages import Watched, launch
from playwright.sync_api import Browser, sync_playwright
from tiny_data import write_tiny_folder

import infer
import report
import train_folds
from nyuseg.data.frames import png_path, write_png
from nyuseg.utils.files import PROJECT

HOSTILE = "<img src=x onerror=alert(1)>&\"'</script>"
SCENES = ["a", "a", "b", "b", HOSTILE, HOSTILE, "c", "d"]
SIZE = (96, 128)


def train(root: Path, oof: Path, name: str, *changes: str) -> None:
    settings = ["model.encoder=tu-test_resnet", "data.size=[64,96]", "train.batch_size=2"]
    settings += ["train.epochs=2", "folds.count=2", "compute.precision=fp32", f"name={name}"]
    train_folds.main(
        ["--fold", "all", "--config", str(PROJECT / "configs/demo.yaml")]
        + ["--input", str(root), "--oof", str(oof)]
        + [f"--set={text}" for text in (*settings, *changes)]
    )


def write_blocks(root: Path) -> None:
    """Labels of large regions, so that there is an inside and a boundary."""
    random = np.random.default_rng(5)
    ids = write_tiny_folder(root, [SIZE] * len(SCENES), test=[SIZE, (48, 128), SIZE])
    rows = [
        f'{i},"{s.replace(chr(34), 2 * chr(34))}",x\n' for i, s in zip(ids, SCENES, strict=True)
    ]
    (root / "scenes.csv").write_text("image_id,scene,scene_type\n" + "".join(rows))
    for image_id in ids:
        label = random.integers(0, 13, (3, 4), dtype=np.uint8).repeat(32, 0).repeat(32, 1)
        label[40:50, 60:90] = 255
        write_png(png_path(root, "train", "label", image_id), label)


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
