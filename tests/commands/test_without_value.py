"""Means over frames of which some have no value: no depth, or nothing but void."""

import csv
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from manifests import make_manifest
from printed import read_table

import infer
import prepare_data
import score
import train_folds
from nyuseg.config.schema import Config
from nyuseg.config.sections import Compute, Folds, Train
from nyuseg.data.depth import DEPTH_MAX, DEPTH_MIN, linear_depth
from nyuseg.data.folds import fold_table
from nyuseg.data.frames import frame_path, list_ids, read_depth, read_label, write_png
from nyuseg.data.integrity import full_check
from nyuseg.demo.data import write_demo
from nyuseg.ensembling.candidates import choose
from nyuseg.evaluation.history import COLUMNS, Epoch, write_metrics
from nyuseg.evaluation.leaderboard import score_table
from nyuseg.evaluation.means import Means, total_loss
from nyuseg.evaluation.tables import difference_text
from nyuseg.evaluation.validation import require_labels
from nyuseg.experiment.folder import Experiment, open_experiment
from nyuseg.experiment.records import Estimate
from nyuseg.training.optimization import TrainingStep
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, read_json

CPU = torch.device("cpu")
SIZE = (48, 64)
NOTHING = {"depth": 0, "label": 255}


def demo(root: Path, **without: slice) -> Path:
    """Ten tiny rooms; some frames, such as depth=slice(0, None, 2), have no value at all."""
    write_demo(root, scenes=5, frames=2, test_scenes=1, size=SIZE, seed=1)
    for kind, which in without.items():
        for path in sorted((root / "train" / kind).iterdir())[which]:
            write_png(path, np.full_like(cv2.imread(str(path), -1), NOTHING[kind]))
    return root


def train(root: Path, oof: Path, *more: str) -> Path:
    """Train two folds of two epochs; the last epochs predict."""
    changes = (
        *("model.encoder=tu-test_resnet", f"data.size=[{SIZE[0]},{SIZE[1]}]", "train.epochs=2"),
        *("compute.precision=fp32", "folds.count=2", "predict.checkpoint=last", "train.ema=null"),
        "compute.cache=null",
    )
    options = ["--config", str(PROJECT / "configs/demo.yaml"), "--input", str(root)]
    options += [f"--set={change}" for change in (*changes, *more)]
    train_folds.main(["--fold", "all", "--oof", str(oof), *options])
    return oof / "demo"


def last_row(folder: Path) -> dict[str, str]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))[-1]


def enlarged(grid: np.ndarray) -> np.ndarray:
    """The decoder's grid at the size of the frames: [...,h,w] to [...,48,64]."""
    tensor = torch.from_numpy(grid.astype(np.float32))[None]
    return torch.nn.functional.interpolate(tensor, SIZE, mode="bilinear")[0].numpy()


def losses_of_frames(experiment: Experiment, fold: int) -> tuple[dict, dict]:
    """Cross entropy and depth error (0..1) of the held-out frames that have them, from files."""
    files, root = experiment.fold_files(fold), experiment.input
    grids = zip(np.load(files.probabilities), np.load(files.depth), strict=True)
    entropy, error = {}, {}
    for image_id, (probabilities, depth) in zip(files.read_ids(), grids, strict=True):
        label = read_label(frame_path(root, "train", "label", image_id))
        truth = read_depth(frame_path(root, "train", "depth", image_id))
        rows, columns = np.nonzero(label != 255)
        if rows.size:
            chosen = enlarged(probabilities)[label[rows, columns], rows, columns]
            entropy[image_id] = -np.log(chosen).mean()
        if truth.any():
            off = np.abs(enlarged(depth)[0] - linear_depth(truth))
            error[image_id] = off[truth > 0].mean()
    return entropy, error


@pytest.mark.slow
def test_frames_without_depth_or_label_are_in_no_mean(tmp_path: Path) -> None:
    root = demo(tmp_path / "data", depth=slice(0, None, 2), label=slice(1, None, 3))
    folder = train(root, tmp_path / "oof")
    experiment = open_experiment("demo", tmp_path / "oof")
    errors: list[float] = []
    for fold in (0, 1):
        entropy, error = losses_of_frames(experiment, fold)
        held_out = len(experiment.ids(fold, held_out=True))
        assert 0 < len(entropy) < held_out and 0 < len(error) < held_out
        row = last_row(folder / f"fold_{fold}")
        expected = np.mean(list(entropy.values())), np.mean(list(error.values()))
        assert float(row["valid_segmentation"]) == pytest.approx(expected[0], rel=5e-3)
        assert float(row["valid_depth"]) == pytest.approx(expected[1], rel=5e-3)
        whole = expected[0] + 0.1 * expected[1]
        assert float(row["valid_loss"]) == pytest.approx(whole, rel=5e-3)
        errors += error.values()
    metres = read_json(folder / "cv.json")["depth_mae_m"]
    assert len(errors) == 5
    assert metres == pytest.approx(np.mean(errors) * (DEPTH_MAX - DEPTH_MIN), rel=1e-4)
    assert f"depth MAE (m) {metres:>12.3f}" in (folder / "report.txt").read_text()


@pytest.mark.slow
def test_where_no_frame_has_depth_there_is_no_number(tmp_path: Path, capsys) -> None:
    root = demo(tmp_path / "data", depth=slice(None))
    folder = train(root, tmp_path / "oof")
    assert "(depth -)" in capsys.readouterr().out
    assert read_json(folder / "cv.json")["depth_mae_m"] is None
    assert re.search(r"^depth MAE \(m\) +- ", (folder / "report.txt").read_text(), re.MULTILINE)
    row = last_row(folder / "fold_0")
    assert row["train_depth"] == row["valid_depth"] == ""
    assert row["train_loss"] == row["train_segmentation"] != ""
    assert row["valid_loss"] == row["valid_segmentation"] != ""
    # What reads the experiment goes on.
    options = ["--experiment", "demo", "--oof", str(tmp_path / "oof"), "--format", "png"]
    infer.main([*options, "--submissions", str(tmp_path / "out")])
    train(root, tmp_path / "oof")
    assert "fold 1: already finished, skipped" in capsys.readouterr().out


@pytest.mark.slow
def test_without_a_depth_head_there_is_no_depth_loss(tmp_path: Path) -> None:
    folder = train(demo(tmp_path / "data"), tmp_path / "oof", "model.depth_head=false")
    row = last_row(folder / "fold_0")
    assert row["train_depth"] == row["valid_depth"] == ""
    assert row["valid_loss"] == row["valid_segmentation"]


# Labels that are all void


def experiment_of(root: Path, count: int) -> Experiment:
    config = Config(name="x", folds=Folds(count=count))
    return Experiment(root, config, fold_table(root, list_ids(root, "train"), count, "scene"), root)


def blank_labels(experiment: Experiment, folds: list[int]) -> None:
    for fold in folds:
        for image_id in experiment.ids(fold, held_out=True):
            path = frame_path(experiment.input, "train", "label", image_id)
            write_png(path, np.full_like(read_label(path), 255))


def test_a_fold_needs_labels_on_both_sides(tiny_folder, tmp_path: Path) -> None:
    root = tmp_path / "data"
    tiny_folder(root, [(5, 7)] * 6, scenes=list("abcabc"))
    experiment = experiment_of(root, 3)
    require_labels(experiment, [0, 1, 2])
    blank_labels(experiment, [1])
    require_labels(experiment, [0, 2])
    with pytest.raises(UserError, match=r"at every pixel of fold 1's held-out images.*count=2"):
        require_labels(experiment, [0, 1])
    blank_labels(experiment, [2])
    with pytest.raises(UserError, match="at every pixel of fold 0's training images"):
        require_labels(experiment, [0])


def test_one_labelled_pixel_is_enough(tiny_folder, tmp_path: Path) -> None:
    root = tmp_path / "data"
    tiny_folder(root, [(5, 7)] * 4, scenes=list("aabb"))
    experiment = experiment_of(root, 2)
    blank_labels(experiment, [0, 1])
    for fold in (0, 1):
        path = frame_path(root, "train", "label", experiment.ids(fold, held_out=True)[1])
        label = read_label(path)
        label[4, 2] = 0
        write_png(path, label)
    require_labels(experiment, [0, 1])
    assert not [fault for fault in full_check(root) if "void" in fault.what]


def test_labels_that_are_all_void_stop_training_and_check(tiny_folder, tmp_path, capsys) -> None:
    root = tmp_path / "data"
    tiny_folder(root, [SIZE] * 4, scenes=list("aabb"))
    blank_labels(experiment_of(root, 2), [0, 1])
    with pytest.raises(UserError, match=r"train/label: 255 \(void\) at every pixel of every"):
        train(root, tmp_path / "oof", "train.batch_size=2")
    assert not list((tmp_path / "oof").rglob("*.pt"))
    capsys.readouterr()
    with pytest.raises(UserError, match="1 fault"):
        prepare_data.main(["check", "--input", str(root)])
    printed = capsys.readouterr().out
    assert f"{root / 'train/label'}: 255 (void) at every pixel of every label" in printed


# The means themselves


def test_means_take_each_number_over_those_that_have_it() -> None:
    means = Means(3, torch.float32, CPU)
    means.add(torch.tensor([2.0, 5.0, 7.0]), torch.tensor([True, True, False]))
    means.add(torch.tensor([4.0, torch.nan, 9.0]), torch.tensor([True, False, False]))
    assert means.read() == [3.0, 5.0, None]


def test_a_total_of_nothing_is_nothing() -> None:
    assert total_loss(2.0, 3.0, 0.1) == 2.0 + 0.1 * 3.0
    assert total_loss(2.0, None, 0.1) == 2.0
    assert total_loss(None, 3.0, 0.1) is None


@pytest.mark.parametrize(("key", "empty", "place"), [("label", 255, 1), ("depth_valid", False, 2)])
def test_a_step_tells_what_its_batch_has_no_pixel_for(key: str, empty: object, place: int) -> None:
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv2d(4, 14, 4, stride=4)

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            answer = self.layer(image)
            return {"logits": answer[:, :13], "depth": answer[:, 13:]}

    batch = {
        "image": torch.randn(2, 4, 16, 24),
        "label": torch.randint(0, 13, (2, 16, 24)),
        "depth": torch.rand(2, 1, 16, 24),
        "depth_valid": torch.ones(2, 1, 16, 24, dtype=torch.bool),
    }
    batch[key] = torch.full_like(batch[key], empty)
    losses = TrainingStep(Network(), Train(batch_size=2), Compute(precision="fp32"), CPU)(batch)
    assert losses.isnan().tolist() == [number == place for number in range(3)]
    assert losses[0] > 0


def test_a_score_that_nothing_defines_is_in_no_mean_of_scores() -> None:
    rows = [
        {"name": name, "manifest": make_manifest(), "miou": miou, "pixel_accuracy": None}
        for name, miou in (("a", 0.6), ("b", None), ("c", 0.2))
    ]
    mean = read_table(score_table(rows), "submission")["mean single fold"]
    assert mean == {"mIoU": "0.4000", "pixel acc": "-", "OOF mIoU": "-", "": ""}


def test_an_all_void_folder_of_labels_scores_nothing(tmp_path: Path, capsys) -> None:
    truth = tmp_path / "truth"
    write_png(truth / "1.png", np.full((3, 4), 255, np.uint8))
    np.save(tmp_path / "submission.npy", np.zeros((1, 3, 4), np.uint8))
    score.main([str(tmp_path / "submission.npy"), str(truth)])
    row = read_table(capsys.readouterr().out, "submission")["submission.npy"]
    assert row == {"mIoU": "-", "pixel acc": "-", "OOF mIoU": "-", "": ""}


def test_metrics_of_nothing_are_empty_cells(tmp_path: Path) -> None:
    row = Epoch(**dict.fromkeys(COLUMNS, 1 / 3) | {"epoch": 2, "valid_depth": None})
    write_metrics(tmp_path / "metrics.csv", [row], {1: 0.5})
    with (tmp_path / "metrics.csv").open() as file:
        found = next(csv.DictReader(file))
    assert (found["epoch"], found["valid_depth"], found["lr"]) == (
        "2",
        "",
        "0.333333",
    ) and not found["seconds"]


def test_weights_are_equal_where_no_pixel_chooses() -> None:
    assert choose(np.zeros((4, 13, 13), int)) == 0


def test_a_difference_that_nothing_defines_is_a_dash() -> None:
    nothing = Estimate(value=None, low=None, high=None, p_above=None)
    assert difference_text(nothing) == "-"
