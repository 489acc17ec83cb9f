"""What a report refuses, what it says of odd pairs, and what it leaves when it is stopped."""

import json
import shutil
import time
from pathlib import Path

import pytest
from report_data import train

import infer
import report
from nyuseg.report import gather
from nyuseg.utils.errors import UserError
from nyuseg.utils.signals import Interrupted

pytestmark = pytest.mark.slow


@pytest.fixture
def oof(work: Path, tmp_path: Path) -> Path:
    """A copy of the experiment one, to be added to."""
    shutil.copytree(work / "oof/one", tmp_path / "oof/one")
    return tmp_path / "oof"


def test_two_experiments_may_have_other_folds_and_it_is_said(work, oof, watched) -> None:
    train(work / "data", oof, "three", "folds.count=3")
    for names in (["one", "three"], ["three", "one"]):
        folder = oof.parent / names[0]
        report.main([*names, "--oof", str(oof), "--output", str(folder)])
        page = watched(folder).open("index.html")
        assert f"{names[1]} has other folds" in page.inner_text(".notice")
        rows = page.locator("section:has(h2:text-is('Folds')) tbody tr").all_inner_texts()
        assert len(rows) == 3 and rows[2].count("-") == 2  # One of them has no third fold.
        page = watched(folder).open("images.html")
        assert page.locator("[name=fold] option").all_inner_texts() == ["all", "0", "1", "2"]


def test_a_report_that_is_stopped_leaves_nothing_in_the_way(work, oof, monkeypatch) -> None:
    def stopped(items, *_):
        yield next(items)
        raise Interrupted(2)

    monkeypatch.setattr(gather, "progress", stopped)
    with pytest.raises(Interrupted):
        report.main(["one", "--oof", str(oof)])
    time.sleep(0.5)
    left = {path.name for path in (oof / "one").iterdir() if "report" in path.name}
    assert left == {"report.txt"}  # Of training.
    (oof / "one/cv.json").unlink()
    train(work / "data", oof, "one")  # Pools again.
    assert (oof / "one/cv.json").exists()


def test_a_folder_of_something_else_is_not_replaced(work, tmp_path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UserError, match=r"holds no images.js; it will not be replaced"):
        report.main(["one", "--oof", str(work / "oof"), "--output", str(tmp_path)])
    assert (tmp_path / "index.html").read_text() == "mine"


def test_labels_that_changed_are_refused(work, oof, tmp_path) -> None:
    shutil.copytree(work / "data", tmp_path / "data")
    label = next((tmp_path / "data/train/label").iterdir())
    label.write_bytes(next(p for p in label.parent.iterdir() if p != label).read_bytes())
    with pytest.raises(UserError, match=label.name):
        report.main(["one", "--oof", str(oof), "--input", str(tmp_path / "data")])
    assert not (oof / "one/report").exists()


def test_a_setting_is_taken_only_with_a_submission(oof) -> None:
    with pytest.raises(UserError, match="--set: only with --submission"):
        report.main(["one", "--oof", str(oof), "--set", "tta.views=[{}]"])


def test_the_views_of_a_submission_must_be_given(work, tmp_path) -> None:
    views = 'tta.views=[{"scale": 1}, {"scale": 1.5}]'
    places = ["--oof", str(work / "oof"), "--submissions", str(tmp_path)]
    infer.main(["--experiment", "one", "--tta", *places, "--set", views])
    with pytest.raises(UserError, match=r"views identity, scale_1.5; give them by --set tta.views"):
        report.main(["--submission", "one_tta", *places])
    report.main(["--submission", "one_tta", *places, "--set", views])
    text = (tmp_path / "one_tta/report/images.js").read_text()
    rows = json.loads(text.removeprefix("const REPORT = ").removesuffix(";\n"))["images"]
    assert len(rows) == 3
