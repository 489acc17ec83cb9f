"""The report of a submission: no truth anywhere, what is sure and where the folds differ."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import report
from nyuseg.data.classes import CLASS_NAMES
from nyuseg.data.frames import FrameFolder
from nyuseg.experiment.folder import open_experiment
from nyuseg.inference.loading import load_predictor
from nyuseg.submission.manifest import Manifest
from nyuseg.utils.errors import UserError

pytestmark = pytest.mark.slow
IDS = ["990001", "990002", "990003"]


def listed(work: Path) -> dict:
    text = (work / "test/images.js").read_text()
    return json.loads(text.removeprefix("const REPORT = ").removesuffix(";\n"))


def test_rows_say_what_the_mean_predicts_and_where_the_folds_differ(work) -> None:
    rows = {row["id"]: row for row in listed(work)["images"]}
    assert list(rows) == IDS
    experiment = open_experiment("one", work / "oof")
    source = FrameFolder(work / "data", "test")
    device = torch.device("cpu")
    each = [load_predictor(experiment, [fold], device, True)[0] for fold in (0, 1)]
    grids = [[one.probabilities for one in predictor.predict(source, IDS)] for predictor in each]
    pixels = np.zeros(13, int)
    for place, image_id in enumerate(IDS):
        one, other = grids[0][place], grids[1][place]
        # The last one's frame is wide: 48x128 in 64x96 takes half of its height.
        height = 9 if image_id == "990002" else 16
        width = 24 if image_id == "990002" else 21
        one, other = one[:, :height, :width], other[:, :height, :width]
        mean = ((one + other) / 2).argmax(0)
        differ = ((one.argmax(0) != mean).float() + (other.argmax(0) != mean).float()).mean() / 2
        assert rows[image_id]["differing"] == pytest.approx(float(differ), abs=1e-6)
        pixels[[k for _, k, _ in rows[image_id]["scores"][0]["pairs"]]] += [
            count for _, _, count in rows[image_id]["scores"][0]["pairs"]
        ]
    manifest = Manifest.read(work / "submissions/one_tta/manifest.json")
    written = np.array([manifest.class_pixels[name] for name in CLASS_NAMES])
    # Means of five and of two times five round differently.
    assert np.abs(pixels - written).sum() <= 0.01 * written.sum()


def test_its_pages_know_no_truth(work, watched) -> None:
    page = watched(work / "test").open("index.html")
    assert "2 networks in 2 views" in page.inner_text("main")
    page.click(".thumb >> nth=0")
    page.wait_for_function("viewer.frame !== null")
    worst = max(listed(work)["images"], key=lambda row: row["differing"])
    assert page.inner_text("#viewer-title").startswith(worst["id"])
    names = page.locator("#layers button").all_inner_texts()
    assert names[4] == "5 Disagreement" and page.locator("#layers button >> nth=2").is_disabled()
    page.hover("#stage")
    told = page.inner_text("#readout")
    assert "disagreeing" in told and "truth" not in told
    assert "truth" not in page.inner_text("#filters").lower()
    page.keyboard.press("Escape")
    order = [row["id"] for row in sorted(listed(work)["images"], key=lambda row: -row["differing"])]
    assert page.locator("#cards b").all_text_contents() == order


def test_what_was_trained_again_is_refused(work, tmp_path) -> None:
    home = tmp_path / "submissions/one_tta"
    home.mkdir(parents=True)
    manifest = json.loads((work / "submissions/one_tta/manifest.json").read_text())
    manifest["folds"]["1"] = "0" * 64
    (home / "manifest.json").write_text(json.dumps(manifest))
    places = ["--oof", str(work / "oof"), "--submissions", str(tmp_path / "submissions")]
    with pytest.raises(UserError, match=r"fold 1 of .* was trained again .* run infer.py again"):
        report.main(["--submission", "one_tta", *places])
    assert not (home / "report").exists()


def test_an_experiment_or_a_submission_must_be_named() -> None:
    for arguments in ([], ["one", "--submission", "one_tta"]):
        with pytest.raises(UserError, match="name an experiment"):
            report.main(arguments)
