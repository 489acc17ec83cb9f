"""The whole path on tiny rooms: train, out-of-fold, pool, infer, score; through the commands."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from printed import read_table
from safetensors.torch import load_file, save_file
from sklearn.metrics import jaccard_score

import infer
import score
import train_folds
from nyuseg.config.loading import load_config, parse_config
from nyuseg.data import fold_split
from nyuseg.data.frames import FrameFolder, frame_path, list_ids, read_label, write_png
from nyuseg.demo.data import write_demo
from nyuseg.evaluation.checkpoint_scores import read_confusions
from nyuseg.evaluation.history import read_seconds
from nyuseg.evaluation.metrics import summarize
from nyuseg.evaluation.oof import check_pooling, image_confusions
from nyuseg.experiment.folder import open_experiment
from nyuseg.inference.grid import to_mask
from nyuseg.models.device import autocast_dtype
from nyuseg.training import fold as fit
from nyuseg.training.checkpoint import load_checkpoint, save_checkpoint
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, read_json

pytestmark = pytest.mark.slow

TINY = [
    f"--set={change}"
    for change in (
        "model.encoder=tu-test_resnet",
        "data.size=[48,64]",
        "train.epochs=2",
        "compute.precision=fp32",
        "folds.count=2",
    )
]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_demo(root, scenes=5, frames=2, test_scenes=2, size=(48, 64), seed=1)
    return root


def train(data: Path, oof: Path, fold: str, *more: str) -> Path:
    config = str(PROJECT / "configs/demo.yaml")
    options = ["--fold", fold, "--config", config, "--input", str(data), "--oof", str(oof)]
    train_folds.main([*options, *TINY, *more])
    return oof / "demo"


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, tmp_path_factory.mktemp("oof"), "0..1")


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """The trained experiment, to be broken."""
    return Path(shutil.copytree(trained, tmp_path / "oof" / "demo"))


def predict(oof: Path, out: Path, *more: str) -> None:
    options = ["--experiment", "demo", "--oof", str(oof), "--submissions", str(out)]
    infer.main([*options, *more])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "last.pt")["model"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


# Out-of-fold


def test_every_image_is_predicted_by_the_fold_that_did_not_train_on_it(trained, data) -> None:
    experiment = open_experiment("demo", trained.parent)
    for fold in (0, 1):
        state = load_checkpoint(trained / f"fold_{fold}" / "last.pt")
        ids = (trained / f"fold_{fold}/oof_ids.txt").read_text().split()
        assert ids == state["valid_ids"] == experiment.ids(fold, held_out=True)
        assert not set(ids) & set(state["train_ids"])
    masks = {path.stem for path in (trained / "masks").iterdir()}
    assert masks == set(list_ids(data, "train"))


def test_cv_is_the_score_of_the_mask_files(trained: Path, data: Path) -> None:
    truth, guess = [], []
    for image_id in list_ids(data, "train"):
        label = read_label(frame_path(data, "train", "label", image_id))
        truth.append(label[label != 255])
        guess.append(read_label(trained / f"masks/{image_id}.png")[label != 255])
    truth, guess = np.concatenate(truth), np.concatenate(guess)
    present = np.union1d(truth, guess)
    expected = jaccard_score(truth, guess, labels=present, average="macro", zero_division=0)
    cv = read_json(trained / "cv.json")
    assert cv["miou"] == pytest.approx(expected)
    assert cv["pixel_accuracy"] == pytest.approx((truth == guess).mean())
    assert 0 < cv["depth_mae_m"] < 9.29
    assert [row["fold"] for row in cv["folds"]] == [0, 1] and cv["notice"] is None


def test_probabilities_on_disk_give_the_masks(trained: Path) -> None:
    config = open_experiment("demo", trained.parent).config
    for fold in (0, 1):
        folder = trained / f"fold_{fold}"
        probabilities = np.load(folder / "oof_probs.npy", mmap_mode="r")
        ids = (folder / "oof_ids.txt").read_text().split()
        assert probabilities.dtype == np.float16 and probabilities.shape == (len(ids), 13, 12, 16)
        for grid, image_id in zip(probabilities, ids, strict=True):
            mask = read_label(trained / f"masks/{image_id}.png")
            again = to_mask(torch.from_numpy(grid.astype(np.float32)), mask.shape, config.data.size)
            # Half precision decides a near tie otherwise; this network has seen two epochs.
            assert (again == mask).mean() > 0.97


def test_metrics_csv_has_a_row_an_epoch_and_the_schedule(trained: Path) -> None:
    with (trained / "fold_0/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [float(row["lr"]) for row in rows] == pytest.approx([1e-3, 5e-4])
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    seconds = read_seconds(trained / "fold_0/metrics.csv")
    assert list(seconds) == [1, 2] and all(value > 0 for value in seconds.values())


# Going on


def test_a_finished_run_is_left_alone(copied: Path, data: Path, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.glob("fold_*/*")}
    train(data, copied.parent, "all")
    assert capsys.readouterr().out.count("already finished, skipped") == 2
    assert before == {path: path.stat().st_mtime_ns for path in copied.glob("fold_*/*")}


@pytest.fixture
def interrupted(data: Path, tmp_path: Path, monkeypatch) -> Path:
    """A folder with an experiment whose fold 0 was stopped in its second epoch."""
    steps = iter(range(100))

    def stop_in_epoch_2(*given):
        if next(steps) == 1:
            raise KeyboardInterrupt
        return validate(*given)

    validate = fit.validate
    with monkeypatch.context() as patch:
        patch.setattr(fit, "validate", stop_in_epoch_2)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path, "0")
    return tmp_path


def test_an_interrupted_fold_ends_with_the_same_weights(trained, data, interrupted, capsys) -> None:
    folder = train(data, interrupted, "0")
    assert "going on after epoch 1" in capsys.readouterr().out
    assert same(weights(folder / "fold_0"), weights(trained / "fold_0"))
    assert (folder / "masks").is_dir() and not (folder / "cv.json").exists()


def test_it_may_go_on_computed_in_another_way(trained, data, interrupted) -> None:
    ways = ("compute.precision=auto", "compute.accumulate=2")
    folder = train(data, interrupted, "0", *(f"--set={way}" for way in ways))
    dtypes = [autocast_dtype(torch.device("cpu"), wish) for wish in ("fp32", "auto")]
    found = [read_json(run / "fold_0/fold.json")["environment"] for run in (trained, folder)]
    assert [f"torch.{one['precision']}" for one in found] == [str(one) for one in dtypes]
    assert not same(weights(folder / "fold_0"), weights(trained / "fold_0"))
    compute = load_config(folder / "config.yaml").compute
    assert (compute.precision, compute.accumulate) == ("auto", 2)


def test_workers_do_not_change_the_result(trained: Path, data: Path, tmp_path: Path) -> None:
    folder = train(data, tmp_path, "0", "--set=compute.workers=2", "--set=train.epochs=2")
    assert same(weights(folder / "fold_0"), weights(trained / "fold_0"))


def test_another_configuration_is_refused_and_fresh_moves_the_old_aside(copied, data) -> None:
    with pytest.raises(UserError, match=r"train\.lr was 0\.001, now 0\.01.*--fresh"):
        train(data, copied.parent, "0", "--set=train.lr=0.01")
    (copied / "keep.txt").write_text("mine")
    train(data, copied.parent, "0", "--set=train.epochs=1", "--fresh")
    assert not (copied / "fold_1").exists()
    assert [path.read_text() for path in copied.parent.glob("demo.*/keep.txt")] == ["mine"]


def test_it_goes_on_with_its_folds_where_scikit_learn_draws_others(
    copied, data, capsys, monkeypatch
) -> None:
    """Its versions do; and half of an experiment would be lost."""
    folds = (copied / "folds.csv").read_bytes()
    draw = fold_split.split_by_scene
    monkeypatch.setattr(fold_split, "split_by_scene", lambda *given: 1 - draw(*given))
    shutil.rmtree(copied / "fold_1")
    train(data, copied.parent, "0..1")
    assert "fold 0: already finished, skipped" in capsys.readouterr().out
    assert (copied / "folds.csv").read_bytes() == folds
    # Where nothing is to be gone on with, they are today's.
    other = train(data, copied.parent, "0..1", "--set=name=other", "--set=train.epochs=1")
    assert (other.parent / "other/folds.csv").read_bytes() != folds


def test_a_start_that_failed_does_not_bind_the_next_one(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not fill a batch of 64"):
        train(data, tmp_path, "0", "--set=train.batch_size=64")
    train(data, tmp_path, "0", "--set=train.epochs=1")


def test_other_data_under_the_same_name_is_refused(copied: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "other", scenes=6, frames=1, test_scenes=1, size=(48, 64))
    with pytest.raises(UserError, match="begun with other data"):
        train(tmp_path / "other", copied.parent, "0")


def test_pooling_names_a_missing_fold_and_a_double_image(copied: Path) -> None:
    experiment = open_experiment("demo", copied.parent)
    ids = copied / "fold_1/oof_ids.txt"
    first = (copied / "fold_0/oof_ids.txt").read_text().split()[0]
    ids.write_text(ids.read_text() + f"{first}\n")
    with pytest.raises(UserError, match=f"image {first} is predicted by two folds"):
        check_pooling(experiment)
    lost = ids.read_text().split()[0]
    ids.write_text("".join(f"{i}\n" for i in ids.read_text().split()[1:-1]))
    with pytest.raises(UserError, match=f"image {lost} is predicted by no fold"):
        check_pooling(experiment)
    (copied / "fold_1/fold.json").unlink()
    with pytest.raises(UserError, match="fold 1 not finished"):
        check_pooling(experiment)


def test_a_random_split_is_marked_leaky_wherever_it_scores(data, tmp_path, capsys) -> None:
    more = ["--set=folds.group=random", "--set=train.epochs=1"]
    folder = train(data, tmp_path / "oof", "all", *more)
    lines = capsys.readouterr().out.splitlines()
    assert all("leaky" in line for line in lines if "valid loss" in line)
    assert any("LEAKY" in line for line in lines)
    assert "LEAKY" in read_json(folder / "cv.json")["notice"]
    predict(tmp_path / "oof", tmp_path / "out", "--format", "png")
    score.main([str(tmp_path / "out/demo"), str(data / "test_label")])
    assert read_table(capsys.readouterr().out, "submission")["demo"][""] == "leaky"


def test_too_few_images_for_a_batch(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"do not fill a batch of 64.*train\.batch_size"):
        train(data, tmp_path, "0", "--set=train.batch_size=64")


def test_a_loss_that_is_not_finite_stops_the_fold(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fold 0, epoch \d.*not finite.*last good checkpoint"):
        train(data, tmp_path, "0", "--set=train.lr=1e30", "--set=train.epochs=4")


def test_labels_that_are_no_class_stop_by_name(data: Path, tmp_path: Path) -> None:
    wrong = Path(shutil.copytree(data, tmp_path / "wrong"))
    path = sorted((wrong / "train/label").iterdir())[0]
    label = read_label(path)
    label[5, 7] = 13
    write_png(path, label)
    with pytest.raises(UserError, match=rf"{path.name}: labels outside 0\.\.12 and 255: 13"):
        train(wrong, tmp_path / "oof", "0", "--set=train.epochs=1")
        train(wrong, tmp_path / "oof", "1", "--set=train.epochs=1")


def test_weights_ruined_by_the_last_step_are_not_saved(data: Path, tmp_path: Path) -> None:
    one_step = ["--set=train.batch_size=4", "--set=train.lr=1e30"]  # The loss itself is finite.
    with pytest.raises(UserError, match=r"epoch 1: .* weights are ruined; .*none yet"):
        train(data, tmp_path, "0", *one_step)
    assert not list((tmp_path / "demo/fold_0").glob("*.pt"))


@pytest.mark.parametrize("averages", [("null", "null"), (0.8, 3)])
def test_the_best_epoch_survives_every_cut(averages, data, tmp_path) -> None:
    """Killed between last.pt and best.pt, or thrown back to previous.pt: the same files."""
    names = ("train.ema", "train.mean_last")
    values = [f"--set={name}={value}" for name, value in zip(names, averages, strict=True)]
    more = ["--set=train.epochs=4", *values]
    whole = train(data, tmp_path / "whole", "0", *more) / "fold_0"
    assert ("averages" in load_checkpoint(whole / "last.pt")) == (averages[0] != "null")
    for cut in ("best lost", "last broken"):
        oof = tmp_path / cut.replace(" ", "_")
        with pytest.MonkeyPatch.context() as patch:
            epochs = iter(range(9))
            stop = fit.validate

            def interrupted(*given, epochs=epochs, stop=stop):
                if next(epochs) == 2:
                    raise KeyboardInterrupt
                return stop(*given)

            patch.setattr(fit, "validate", interrupted)
            with pytest.raises(KeyboardInterrupt):
                train(data, oof, "0", *more)
        folder = oof / "demo/fold_0"
        if cut == "best lost" and load_checkpoint(folder / "last.pt")["best"]["epoch"] == 2:
            (folder / "best.pt").unlink()
        if cut == "last broken":
            (folder / "last.pt").write_bytes(b"half")
        train(data, oof, "0", *more)
        for name in ("best.pt", "last.pt", "checkpoints.npz", "weights.safetensors"):
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


# Which checkpoint predicts


@pytest.fixture(scope="session")
def averaged(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment whose folds predict with the moving average; their best epochs differ."""
    more = ["train.epochs=4", "train.ema=0.8", "train.mean_last=3", "predict.checkpoint=ema"]
    oof = tmp_path_factory.mktemp("averaged")
    return train(data, oof, "all", "--set=train.lr=0.01", *(f"--set={text}" for text in more))


def test_averages_do_not_change_the_training(trained, data, tmp_path) -> None:
    more = ["--set=train.ema=null", "--set=train.mean_last=1"]
    folder = train(data, tmp_path, "0", *more) / "fold_0"
    kept = load_checkpoint(folder / "last.pt")["averages"]["weights"]
    assert list(kept) == ["mean"] and same(kept["mean"], weights(folder))  # Of the last epoch.
    found = np.load(folder / "checkpoints.npz")
    assert (found["mean"] == found["last"]).all()
    for name in ("weights.safetensors", "best.pt", "oof_probs.npy"):
        assert (folder / name).read_bytes() == (trained / "fold_0" / name).read_bytes()


def test_the_average_is_released_and_makes_the_masks(averaged: Path) -> None:
    experiment = open_experiment("demo", averaged.parent)
    masks = image_confusions(experiment)
    kinds, halves = read_confusions(experiment)
    assert list(kinds) == ["best", "last", "ema", "mean"]
    # Folded BatchNorm rounds differently: a few pixels of 30720.
    distance = {kind: np.abs(found - masks).sum() for kind, found in kinds.items()}
    assert distance.pop("ema") < 300 < 3 * 300 < min(distance.values())
    for fold in (0, 1):
        folder = averaged / f"fold_{fold}"
        state = load_checkpoint(folder / "last.pt")
        released = load_file(folder / "weights.safetensors")
        kept = state["averages"]["weights"]
        assert same(released, kept["ema"]) and released.keys() == state["model"].keys()
        assert not same(released, state["model"]) and not same(released, kept["mean"])
        facts = read_json(folder / "weights.json")
        assert (facts["checkpoint"], facts["epoch"]) == ("ema", 4)
        assert halves[fold].shape == (4, 2, 13, 13)


def test_confusions_by_image_add_up_to_those_by_fold(averaged: Path) -> None:
    experiment = open_experiment("demo", averaged.parent)
    kinds, halves = read_confusions(experiment)
    for fold in (0, 1):
        facts = read_json(averaged / f"fold_{fold}/fold.json")
        for kind in ("best", "last"):
            found = kinds[kind][experiment.table["fold"] == fold].sum(0)
            assert found.tolist() == facts[kind]["confusion"]
            epoch = halves[fold][facts[kind]["epoch"] - 1]
            assert epoch.sum(0).tolist() == facts[kind]["confusion"] and epoch.sum((1, 2)).all()


def test_cv_compares_the_checkpoints(averaged: Path) -> None:
    experiment, cv = open_experiment("demo", averaged.parent), read_json(averaged / "cv.json")
    kinds, _ = read_confusions(experiment)
    assert cv["predicts"] == "ema" and list(cv["checkpoints"]) == list(kinds)
    scores = {kind: row["miou"] for kind, row in cv["checkpoints"].items()}
    for kind, found in kinds.items():
        assert scores[kind] == pytest.approx(summarize(found.sum(0))["miou"])
    gain = cv["checkpoints"]["mean"]["over_last"]
    assert gain["value"] == pytest.approx(scores["mean"] - scores["last"])
    assert gain["low"] <= gain["value"] <= gain["high"] and 0 <= gain["p_above"] <= 1
    assert cv["checkpoints"]["last"]["over_last"] is None
    luck = cv["optimism"]
    assert luck["same"] == pytest.approx(scores["best"])
    assert luck["optimism"] == pytest.approx(scores["best"] - luck["other"])
    assert (
        f"optimism of that choice: {luck['optimism']:+.4f}" in (averaged / "report.txt").read_text()
    )


def test_a_checkpoint_without_its_average_is_refused(copied: Path, data: Path) -> None:
    folder = copied / "fold_0"
    (folder / "fold.json").unlink()
    state = load_checkpoint(folder / "last.pt")
    del state["averages"]["weights"]["ema"]
    save_checkpoint(folder / "last.pt", state)
    with pytest.raises(UserError, match=r"last\.pt: .*use --fresh"):
        train(data, copied.parent, "0")


# Inference


def test_inference_needs_nothing_but_the_experiment(copied, data, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    predict(copied.parent, out, "--tta")
    predict(copied.parent, out)
    predict(copied.parent, out, "--fold", "1", "--format", "npy")
    manifest = read_json(out / "demo_tta/manifest.json")
    assert manifest["views"] == ["identity", "horizontal_flip"]
    hashes = [read_json(copied / f"fold_{k}/weights.json")["sha256"] for k in (0, 1)]
    assert list(manifest["folds"].values()) == hashes
    assert manifest["cv"]["miou"] == read_json(copied / "cv.json")["miou"]
    masks = np.load(out / "demo_tta/submission.npy")
    assert masks.shape == (4, 48, 64) and masks.dtype == np.uint8
    counts = np.bincount(masks.ravel(), minlength=13).tolist()
    assert list(manifest["class_pixels"].values()) == counts
    assert (masks != np.load(out / "demo/submission.npy")).any()
    assert not (out / "demo_fold1/submission.csv").exists()
    assert (out / "demo_tta/preview.png").stat().st_size > 1000
    capsys.readouterr()
    files = [str(out / "demo_tta" / f"submission.{kind}") for kind in ("npy", "csv", "zip")]
    score.main([*files, str(data / "test_label")])
    rows = read_table(capsys.readouterr().out, "submission").values()
    assert len(rows) == 3 and len({row["mIoU"] for row in rows}) == 1


@pytest.mark.parametrize("fusion", ["branch", "two_stream"])
def test_other_ways_of_the_depth_and_an_auxiliary_head(fusion, data, tmp_path) -> None:
    more = [f"model.fusion={fusion}", "train.aux_loss=0.4", "train.ema=0.8", "train.epochs=1"]
    folder = train(data, tmp_path / "oof", "0..1", *(f"--set={text}" for text in more))
    kept = {name.partition(".")[0] for name in weights(folder / "fold_1")}
    released = {name.partition(".")[0] for name in load_file(folder / "fold_1/weights.safetensors")}
    assert kept - released == {"auxiliary_head"}
    assert {"branch": "depth_branch", "two_stream": "two_stream"}[fusion] in released
    predict(tmp_path / "oof", tmp_path / "submissions", "--tta")
    assert (tmp_path / "submissions/demo_tta/submission.zip").is_file()


def test_the_run_length_format_is_chosen_when_predicting(copied, data, tmp_path, capsys) -> None:
    more = ["--set=submission.order=row", "--set=submission.base=0", "--set=submission.empty=-1"]
    predict(copied.parent, tmp_path, "--format", "rle,png", *more)
    lines = (tmp_path / "demo/submission.csv").read_text().splitlines()
    assert any(line.endswith(",-1") for line in lines)
    capsys.readouterr()
    score.main(
        [
            *(str(tmp_path / "demo" / f"submission.{k}") for k in ("csv", "zip")),
            str(data / "test_label"),
        ]
    )
    rows = read_table(capsys.readouterr().out, "submission").values()
    assert len(rows) == 2 and len({row["mIoU"] for row in rows}) == 1
    with pytest.raises(UserError, match=r"model\.decoder is fixed by the training"):
        predict(copied.parent, tmp_path, "--set=model.decoder=fpn")


def test_predicting_twice_gives_the_same_files(copied: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        predict(copied.parent, tmp_path / name, "--tta")
    for file in ("submission.npy", "submission.csv", "submission.zip", "preview.png"):
        one, other = (tmp_path / name / "demo_tta" / file for name in ("a", "b"))
        assert one.read_bytes() == other.read_bytes()


def test_images_of_different_sizes_need_rle_or_png(copied, data, tmp_path) -> None:
    mixed = Path(shutil.copytree(data, tmp_path / "mixed"))
    write_demo(tmp_path / "tall", scenes=2, frames=1, test_scenes=1, size=(80, 40))
    for kind in ("image", "depth"):
        tall = next((tmp_path / "tall/test" / kind).iterdir())
        shutil.copy(tall, sorted((mixed / "test" / kind).iterdir())[-1])
    with pytest.raises(UserError, match="use --format rle,png"):
        predict(copied.parent, tmp_path / "out", "--input", str(mixed), "--format", "npy,rle")
    assert not list((tmp_path / "out").glob("*demo*"))
    predict(copied.parent, tmp_path / "out", "--input", str(mixed), "--format", "rle,png")
    assert read_json(tmp_path / "out/demo/manifest.json")["sizes"] == ["48x64", "80x40"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda exp: shutil.rmtree(exp / "fold_1"), "fold 1 is not trained"),
        (lambda exp: (exp / "fold_0/weights.safetensors").unlink(), "no such file"),
        (lambda exp: (exp / "fold_0/weights.safetensors").write_bytes(b"x"), "not the file that"),
        (lambda exp: swap_folds(exp), "another fold table"),
        (lambda exp: change_config(exp, "encoder", "tu-resnet10t"), "do not fit tu-resnet10t"),
        (lambda exp: edit_folds(exp), "changed since training"),
    ],
)
def test_what_does_not_belong_together_is_refused(copied, tmp_path, damage, message) -> None:
    damage(copied)
    with pytest.raises(UserError, match=message):
        predict(copied.parent, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*demo*"))


def swap_folds(experiment: Path) -> None:
    (experiment / "fold_0").rename(experiment / "x")
    (experiment / "fold_1").rename(experiment / "fold_0")
    (experiment / "x").rename(experiment / "fold_1")


def change_config(experiment: Path, key: str, value: str) -> None:
    path = experiment / "config.yaml"
    config = load_config(path).model_dump(mode="json")
    config["model"][key] = value
    parse_config(config, "test")
    path.write_text(json.dumps(config))  # JSON is YAML.


def edit_folds(experiment: Path) -> None:
    path = experiment / "folds.csv"
    head, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, *rest, first]) + "\n")


def test_an_unknown_experiment_lists_those_there_are(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such experiment \(found: demo\)"):
        infer.main(["--experiment", "nope", "--oof", str(copied.parent)])


def test_a_submission_folder_that_cannot_be_written(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        predict(copied.parent, tmp_path / "file" / "out")


def test_a_broken_depth_file_stops_inference_and_training_by_name(copied, data, tmp_path) -> None:
    broken = Path(shutil.copytree(data, tmp_path / "broken"))
    for split in ("test", "train"):
        path = sorted((broken / split / "depth").iterdir())[1]
        path.write_bytes(path.read_bytes()[:200])  # The header is whole: the cheap check passes.
    with pytest.raises(
        UserError, match=r"test/depth/\d+\.png: (truncated|damaged|cannot be decoded)"
    ):
        predict(copied.parent, tmp_path / "out", "--input", str(broken))
    with pytest.raises(
        UserError, match=r"train/depth/\d+\.png: (truncated|damaged|cannot be decoded)"
    ):
        train(broken, tmp_path / "oof2", "0", "--set=name=broken")


# Real frames


@pytest.mark.parametrize(("name", "batch"), [("rooms", 4), ("nyuv2_sample", 2)])
def test_real_frames_train_a_step_and_infer(name: str, batch: int, tmp_path: Path) -> None:
    root = PROJECT.parent / "shared/data" / name
    if not root.exists():
        pytest.skip(f"{root} is not on this machine: the frames must not be redistributed")
    config = load_config(PROJECT / "configs/exp060.yaml", [change[6:] for change in TINY])
    from nyuseg.dataloading.dataset import TrainingSet
    from nyuseg.dataloading.inputs import training_inputs
    from nyuseg.dataloading.loader import make_loader
    from nyuseg.inference.ensemble import Ensemble
    from nyuseg.inference.predictor import Predictor
    from nyuseg.models.network import build_model
    from nyuseg.training.losses import multitask_loss

    ids = list_ids(root, "train")[:batch]
    config = config.model_copy(
        update={"model": config.model.model_copy(update={"encoder_weights": None})}
    )
    model, device = build_model(config.model, config.data), torch.device("cpu")
    source = FrameFolder(root, "train")
    samples = TrainingSet(source, ids, config, fold=0)
    loader = make_loader(samples, batch, 0, device, sampler=[(0, i) for i in range(batch)])
    first = training_inputs(next(iter(loader)), config.data, device)
    assert first["depth_valid"].any() and (first["label"] != 255).any()
    loss = multitask_loss(model(first["image"]), first, config.train)["total"]
    loss.backward()
    assert torch.isfinite(loss)
    predictor = Predictor([Ensemble([model], config, device, tta=True)])
    for prediction in predictor.predict(source, ids):
        label = read_label(frame_path(root, "train", "label", prediction.id))
        assert prediction.mask.shape == label.shape and prediction.mask.max() < 13


def test_other_pictures_under_the_same_ids_are_refused(copied: Path, data, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_demo(other, scenes=5, frames=2, test_scenes=2, size=(48, 64), seed=2)
    with pytest.raises(UserError, match="begun with other data"):
        train(other, copied.parent, "0")
    moved = Path(shutil.copytree(data, tmp_path / "moved"))  # The same data elsewhere is fine.
    train(moved, copied.parent, "0")


def test_a_run_in_its_first_epoch_binds_the_configuration(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not fill a batch of 64"):
        train(data, tmp_path, "0", "--set=train.batch_size=64")
    with open_experiment("demo", tmp_path).lock(0):  # As if that process were alive.
        with pytest.raises(UserError, match="begun with another configuration"):
            train(data, tmp_path, "1")
        with pytest.raises(UserError, match="fold_0: being written by process"):
            train(data, tmp_path, "1", "--fresh")


def test_inference_never_replaces_an_experiment(copied: Path) -> None:
    with pytest.raises(UserError, match="will not be replaced"):
        predict(copied.parent, copied.parent)
    assert (copied / "cv.json").exists()
    for name in ("../demo", "demo/", ".demo"):
        with pytest.raises(UserError, match="not a safe name"):
            infer.main(["--experiment", name, "--oof", str(copied.parent)])


def test_fresh_waits_for_no_one(copied: Path, data: Path) -> None:
    """A fold that another process trains is not moved from under its feet."""
    with (
        open_experiment("demo", copied.parent).lock(1),
        pytest.raises(UserError, match="fold_1: being written by process"),
    ):
        train(data, copied.parent, "0", "--fresh")
    assert (copied / "cv.json").exists()


def test_frames_of_odd_sizes_train_and_are_answered_at_their_size(tiny_folder, tmp_path) -> None:
    sizes = [(1, 1), (37, 53), (400, 300), (48, 64)]
    root = tmp_path / "odd"
    tiny_folder(root, sizes, scenes=["a", "b", "c", "d"], test=sizes)
    oof, out = tmp_path / "oof", tmp_path / "out"
    folder = train(root, oof, "all", "--set=train.batch_size=2", "--set=train.epochs=1")
    assert {read_label(path).shape for path in (folder / "masks").iterdir()} == set(sizes)
    predict(oof, out, "--format", "rle,png")
    assert len(read_json(out / "demo/manifest.json")["sizes"]) == 4


MISTAKES = [
    (["train_folds.py", "--fold", "7"], "--fold 7: expected a fold 0..4"),
    (["train_folds.py", "--fold", "4..0"], "--fold 4..0: expected"),
    (["train_folds.py"], "--fold"),
    (["train_folds.py", "--fold", "0", "--set", "train.epoch=1"], "train.epoch"),
    (["train_folds.py", "--fold", "0", "--input", "nowhere"], "nowhere/train/image"),
    (  # Before the data is looked for.
        ["train_folds.py", "--fold", "0", "--set", "model.encoder=tu-swin_tiny_patch4_window7_224"],
        "use model.decoder=fpn or upernet or unet",
    ),
    (["infer.py", "--experiment", "nope", "--oof", "."], "no such experiment"),
    (["infer.py", "--format", "gif"], "'gif' is none of npy, rle, png"),
    (["prepare_data.py", "nyuv2", "--mat", "gone.mat"], "gone.mat: no such file"),
    (["prepare_data.py", "check", "--input", "nowhere"], "1 fault"),
    (["score.py", "nothing", "nowhere"], "nowhere"),
]


@pytest.mark.parametrize(("command", "message"), MISTAKES)
def test_mistakes_are_one_line_from_any_directory(tmp_path, command, message) -> None:
    script = str(PROJECT / "src" / command[0])
    done = subprocess.run(
        [sys.executable, script, *command[1:]], capture_output=True, text=True, cwd=tmp_path
    )
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (1, 1), done.stderr
    assert lines[0].startswith("error: ") and message in lines[0]


def test_a_transformer_keeps_what_its_weights_were_normalised_by(data, tmp_path, capsys) -> None:
    path = tmp_path / "vit.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), path)
    changes = {
        "model.encoder": "tu-test_vit",
        "model.decoder": "dpt",
        "model.encoder_weights": path,
        "model.drop_path": 0.1,
        "data.size": "[32,64]",
        "data.mean": "null",
        "data.std": "null",
        "train.epochs": 1,
        "train.layer_decay": 0.7,
        "train.decay_all": "false",
    }
    options = [f"--set={key}={value}" for key, value in changes.items()]
    folder = train(data, tmp_path / "oof", "all", *options)
    kept = load_config(folder / "config.yaml").data
    assert kept.mean == kept.std == (0.5, 0.5, 0.5)  # timm's record of these weights.
    assert "warning" not in capsys.readouterr().out
    path.unlink()  # What predicts needs neither these weights nor the record.
    predict(folder.parent, tmp_path / "submissions", "--tta")
    train(data, folder.parent, "all", *options)
    assert capsys.readouterr().out.count("already finished") == 2
    with pytest.raises(UserError, match=r"data\.mean was \(0\.5, 0\.5, 0\.5\), now \(0\.4"):
        train(data, folder.parent, "all", *options, "--set=data.mean=[0.4,0.4,0.4]")


def test_a_file_and_another_normalisation_are_told(data, tmp_path, capsys) -> None:
    path = tmp_path / "resnet.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    options = [f"--set=model.encoder_weights={path}", "--set=train.epochs=1"]
    train(data, tmp_path / "oof", "0", *options)
    assert "warning: data.mean=[0.525,0.443,0.4]" in capsys.readouterr().out
