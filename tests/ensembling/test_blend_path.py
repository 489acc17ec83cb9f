"""Blends of trained experiments, from the commands a user types to the kernel's masks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import blend
import infer
import package_kernel
import train_folds
import tta_search
from nyuseg.data.frames import FrameFolder, list_ids
from nyuseg.demo.data import write_demo
from nyuseg.evaluation.metrics import mean_iou
from nyuseg.evaluation.oof import image_confusions
from nyuseg.experiment.folder import open_experiment
from nyuseg.inference.ensemble import Ensemble
from nyuseg.inference.grid import regrid, to_mask
from nyuseg.inference.loading import load_folds
from nyuseg.inference.predictor import Predictor
from nyuseg.kaggle.kernel import run as run_kernel
from nyuseg.utils.cli import run
from nyuseg.utils.files import PROJECT

pytestmark = pytest.mark.slow

TINY = (
    *("model.encoder=tu-test_resnet", "train.epochs=2", "compute.precision=fp32"),
    *("folds.count=2", "compute.workers=0"),
)
DEEP = ("name=deep", "data.size=[48,64]")
# Another decoder, other channels, no depth head, and an input on whose grid frames are padded.
WIDE = (
    *("name=wide", "data.size=[64,96]", "data.channels=[rgb]", "model.decoder=fpn"),
    *("model.depth_head=false", "tta.views=[{}, {flip: true}, {scale: 0.7, weight: 2}]"),
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny data, two experiments that differ in all that may differ, and their blend."""
    work = tmp_path_factory.mktemp("work")
    write_demo(work / "data", scenes=5, frames=2, test_scenes=2, size=(48, 64), seed=1)
    for settings in (DEEP, WIDE):
        config = ["--config", str(PROJECT / "configs/demo.yaml"), "--input", str(work / "data")]
        options = [f"--set={text}" for text in (*TINY, *settings)]
        train_folds.main(["--fold", "all", *config, "--oof", str(work / "oof"), *options])
    blend.main(["deep", "wide", "--name", "both", "--oof", str(work / "oof")])
    return work


def predict(work: Path, name: str, *more: str) -> Path:
    place = ["--oof", str(work / "oof"), "--submissions", str(work / "out")]
    infer.main(["--experiment", name, *place, *more])
    return work / "out"


def weighted_masks(work: Path, tta: bool) -> list[np.ndarray]:
    """The blend's masks of the test images, from each member's own prediction."""
    both = open_experiment("both", work / "oof")
    answers = []
    for part in both.parts:
        config = part.experiment.config
        models, _ = load_folds(part.experiment, [0, 1])
        ids = list_ids(work / "data", "test")
        source = FrameFolder(work / "data", "test")
        predictor = Predictor([Ensemble(models, config, torch.device("cpu"), tta)])
        answers.append(
            [
                regrid(one.probabilities, one.size, one.input_size, (64, 96)) * part.weight
                for one in predictor.predict(source, ids)
            ]
        )
    return [to_mask(a + b, (48, 64), (64, 96)) for a, b in zip(*answers, strict=True)]


def test_inference_averages_the_members_in_their_own_views(work: Path) -> None:
    out = predict(work, "both", "--tta", "--format", "npy,png")
    found = np.load(out / "both_tta/submission.npy")
    assert np.mean(found == np.stack(weighted_masks(work, True))) > 0.9999  # Batches differ.
    assert np.mean(found == np.stack(weighted_masks(work, False))) < 0.9999
    manifest = json.loads((out / "both_tta/manifest.json").read_text())
    assert manifest["views"] == ["identity", "horizontal_flip", "scale_0.7"]
    hashes = {
        name: json.loads((work / f"oof/{name}/fold_1/weights.json").read_text())["sha256"]
        for name in ("deep", "wide")
    }
    assert manifest["folds"]["1"] == hashes
    scores = mean_iou(image_confusions(open_experiment("both", work / "oof")).sum(0))
    assert manifest["cv"]["miou"] == pytest.approx(float(scores))


def test_the_kernel_predicts_a_blend_as_inference_does(work: Path, tmp_path: Path) -> None:
    out = predict(work, "both", "--tta", "--format", "npy")
    place = ["--oof", str(work / "oof"), "--output", str(tmp_path / "kaggle")]
    options = ["--owner", "alice", "--experiment", "both", "--precision", "fp32", *place]
    package_kernel.main([*options, "--format", "npy"])
    package = tmp_path / "kaggle/dataset"
    facts = json.loads((package / "manifest.json").read_text())
    (tmp_path / "working").mkdir()
    inputs = tmp_path / "inputs"
    shutil.copytree(work / "data/test", inputs / "competition/test")
    run_kernel(package, facts["fingerprint"], inputs, tmp_path / "working", 1)
    found = np.load(tmp_path / "working/submission.npy")
    assert np.array_equal(found, np.load(out / "both_tta/submission.npy"))


def test_one_fold_of_a_blend_is_one_fold_of_each_member(work: Path) -> None:
    out = predict(work, "both", "--fold", "1", "--format", "npy")
    manifest = json.loads((out / "both_fold1/manifest.json").read_text())
    assert list(manifest["folds"]) == ["1"] and set(manifest["folds"]["1"]) == {"deep", "wide"}


def test_a_member_that_was_trained_again_is_refused(work: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(work / "oof", tmp_path / "oof")
    path = tmp_path / "oof/wide/fold_0"
    other = tmp_path / "oof/wide/fold_1"
    facts, weights = (json.loads((one / "weights.json").read_text()) for one in (path, other))
    shutil.copy(other / "weights.safetensors", path / "weights.safetensors")
    (path / "weights.json").write_text(json.dumps({**facts, "sha256": weights["sha256"]}))
    options = ["--experiment", "both", "--oof", str(tmp_path / "oof")]
    with pytest.raises(SystemExit) as stopped:
        run(infer.main, [*options, "--submissions", str(tmp_path / "out")])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "wide was trained again since it was blended; run src/blend.py again" in error


def test_views_are_searched_on_the_images_that_were_held_out(work: Path, capsys) -> None:
    for name in ("deep", "wide"):
        place = ["--oof", str(work / "oof")]
        tta_search.main([name, "--scales", "1.5", *place])
        printed = capsys.readouterr().out
        result = json.loads((work / f"oof/{name}/tta.json").read_text())
        assert len(result["rows"]) == 4
        first = result["rows"][0]
        cv = json.loads((work / f"oof/{name}/cv.json").read_text())
        assert first["views"] == ["identity"] and first["gain"]["value"] == 0
        assert first["miou"] == pytest.approx(cv["miou"], abs=1e-4)
        seconds = [row["seconds"] for row in result["rows"]]
        assert seconds == sorted(seconds) and result["advised"] in result["rows"]
        setting = result["advised"]["setting"]
        assert setting in printed
        predict(work, name, "--tta", "--format", "rle", "--set", setting)
        manifest = json.loads((work / f"out/{name}_tta/manifest.json").read_text())
        assert manifest["views"] == result["advised"]["views"]


@pytest.mark.parametrize("scales", ["1", "0.75,0.75", "x", "9"])
def test_scales_that_make_no_sense_are_one_line(work: Path, scales: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(tta_search.main, ["deep", "--scales", scales, "--oof", str(work / "oof")])
    assert stopped.value.code == 1
    assert f"error: --scales {scales}: expected different numbers" in capsys.readouterr().err


def test_the_views_of_a_blend_are_its_members(work: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        run(tta_search.main, ["both", "--oof", str(work / "oof")])
    assert "a blend; search the views of its members" in capsys.readouterr().err
