"""Networks on all images: what they see, how long, what they need before, and who averages them."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from printed import read_table
from safetensors.torch import load_file

import blend
import check_kernel
import infer
import package_kernel
import score
import train_folds
from nyuseg.config.loading import load_config
from nyuseg.data.frames import FrameFolder, list_ids
from nyuseg.demo.data import write_demo
from nyuseg.experiment.folder import Experiment, open_experiment
from nyuseg.experiment.records import EpochScore, FoldRecord
from nyuseg.inference.loading import load_predictor
from nyuseg.training import fold as fit
from nyuseg.training.checkpoint import load_checkpoint
from nyuseg.training.full_fit import epochs_line, epochs_of, require_folds
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, read_json, write_json

CPU = torch.device("cpu")
TINY = (
    *("model.encoder=tu-test_resnet", "data.size=[48,64]", "compute.precision=fp32"),
    *("folds.count=3", "folds.full=2", "train.epochs=4", "train.lr=0.01"),
)


# How long


def scored(tmp_path: Path, best: list[int | None], *overrides: str) -> Experiment:
    """An experiment of three folds, finished with these best epochs; None: not finished."""
    settings = ["folds.count=3", "train.epochs=9", *overrides]
    config = load_config(PROJECT / "configs/demo.yaml", settings)
    experiment = Experiment(tmp_path / "demo", config, None, tmp_path)
    for fold, epoch in enumerate(best):
        if epoch is not None:
            score = EpochScore(epoch=epoch, confusion=[])
            record = FoldRecord(fold=fold, epoch=9, best=score, last=score, environment={})
            record.write(experiment.fold_files(fold).finished)
    return experiment


def test_a_full_fit_stops_at_the_median_of_the_best_epochs(tmp_path: Path) -> None:
    experiment = scored(tmp_path, [9, 2, 8])
    assert epochs_of(experiment, "full0") == epochs_of(experiment, "full7") == 8
    assert epochs_of(experiment, 1) == 9
    assert epochs_line(experiment) == "full: 8 of 9 epochs, median of the folds' best (2, 8, 9)"


def test_between_two_best_epochs_the_larger_counts(tmp_path: Path) -> None:
    assert epochs_of(scored(tmp_path, [3, 6], "folds.count=2"), "full0") == 6


@pytest.mark.parametrize("kind", ["last", "ema", "mean"])
def test_without_a_best_epoch_it_takes_as_many_as_the_folds(tmp_path: Path, kind: str) -> None:
    averages = ["train.ema=0.9", "train.mean_last=2"]
    experiment = scored(tmp_path, [3, 3, 3], f"predict.checkpoint={kind}", *averages)
    assert epochs_of(experiment, "full0") == 9
    assert epochs_line(experiment) == f"full: 9 epochs and checkpoint '{kind}', as the folds"


@pytest.mark.parametrize("kind", ["best", "last"])
def test_folds_that_are_missing_are_named_with_what_to_type(tmp_path: Path, kind: str) -> None:
    experiment = scored(tmp_path, [None, 5, None], f"predict.checkpoint={kind}")
    expected = (
        r"demo: --fold full .* fold 0, 2 is not finished; run --fold 0,2 first, or --fold all"
    )
    with pytest.raises(UserError, match=expected):
        require_folds(experiment)
    with pytest.raises(UserError, match="fold 2 is not finished; run --fold 2 first"):
        require_folds(experiment, before=[0])
    require_folds(experiment, before=[2, 0])


# Training


def train(work: Path, fold: str, *more: str, oof: str = "oof") -> Path:
    config = ["--config", str(PROJECT / "configs/demo.yaml"), "--input", str(work / "data")]
    settings = [f"--set={text}" for text in TINY]
    train_folds.main(["--fold", fold, *config, "--oof", str(work / oof), *settings, *more])
    return work / oof / "demo"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny data, three folds and two networks on all images."""
    work = tmp_path_factory.mktemp("full")
    write_demo(work / "data", scenes=5, frames=2, test_scenes=2, size=(48, 64), seed=1)
    train(work, "all")
    for fold in range(3):  # How lucky a fold of four epochs is depends on the machine.
        path = work / f"oof/demo/fold_{fold}/fold.json"
        record = read_json(path)
        write_json(path, record | {"best": record["best"] | {"epoch": 3}})
    train(work, "full")
    return work


@pytest.fixture
def copied(work: Path, tmp_path: Path) -> Path:
    """The same, to be broken."""
    return Path(shutil.copytree(work, tmp_path / "work"))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_it_trains_on_every_image_and_holds_none_out(work: Path) -> None:
    for name in ("full0", "full1"):
        folder = work / f"oof/demo/fold_{name}"
        state = load_checkpoint(folder / "last.pt")
        assert (
            state["train_ids"] == list_ids(work / "data", "train")
            and len(set(state["train_ids"])) == 10
        )
        assert state["valid_ids"] == read_json(folder / "weights.json")["valid_ids"] == []


@pytest.mark.slow
def test_what_it_leaves_behind_claims_no_score(work: Path) -> None:
    folder = work / "oof/demo/fold_full0"
    names = {"last.pt", "metrics.csv", "progress.png", "train.log"}
    names |= {"weights.safetensors", "weights.json", "fold.json"}
    assert {path.name for path in folder.iterdir()} == names
    record = read_json(folder / "fold.json")
    assert (record["fold"], record["best"], record["last"]) == ("full0", None, None)
    found = rows(folder)
    assert all(float(row["train_loss"]) > 0 for row in found)
    assert not any(text for row in found for key, text in row.items() if key[:6] == "valid_")
    assert [row["fold"] for row in read_json(work / "oof/demo/cv.json")["folds"]] == [0, 1, 2]
    assert len(list((work / "oof/demo/masks").iterdir())) == 10


@pytest.mark.slow
def test_it_follows_the_schedule_of_the_folds_up_to_their_median_best(work: Path) -> None:
    best = [read_json(work / f"oof/demo/fold_{k}/fold.json")["best"]["epoch"] for k in range(3)]
    epochs = sorted(best)[1]
    assert 1 < epochs < 4  # Or this data shows nothing.
    folder = work / "oof/demo/fold_full1"
    rates = [row["lr"] for row in rows(folder)]
    assert (
        len(rates) == epochs and rates == [r["lr"] for r in rows(work / "oof/demo/fold_0")][:epochs]
    )
    facts = read_json(folder / "weights.json")
    assert (facts["checkpoint"], facts["epoch"]) == ("last", epochs)
    released, kept = load_file(folder / "weights.safetensors"), load_checkpoint(folder / "last.pt")
    assert all(torch.equal(released[key], kept["model"][key]) for key in released)


@pytest.mark.slow
def test_networks_on_all_images_differ_from_the_first_epoch_on(work: Path) -> None:
    losses = [
        rows(work / f"oof/demo/fold_{k}")[0]["train_loss"] for k in (0, 1, 2, "full0", "full1")
    ]
    assert len(set(losses)) == 5


@pytest.mark.slow
def test_an_average_of_the_weights_is_released_after_all_epochs(copied: Path) -> None:
    more = ["train.ema=0.8", "train.mean_last=2", "predict.checkpoint=mean", "train.epochs=3"]
    folder = train(copied, "all,full1", *(f"--set={text}" for text in more), oof="mean")
    facts = read_json(folder / "fold_full1/weights.json")
    assert (facts["checkpoint"], facts["epoch"]) == ("mean", 3)
    kept = load_checkpoint(folder / "fold_full1/last.pt")["averages"]["weights"]["mean"]
    released = load_file(folder / "fold_full1/weights.safetensors")
    assert all(torch.equal(released[key], kept[key]) for key in released)
    assert not (folder / "fold_full0").exists()


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["in an epoch", "last broken"])
def test_it_goes_on_with_the_same_bits(
    work: Path, copied: Path, cut: str, monkeypatch, capsys
) -> None:
    folder, epochs = copied / "oof/demo/fold_full1", iter(range(9))
    shutil.rmtree(folder)
    whole = fit.FoldTrainer._try_out

    def interrupted(trainer: fit.FoldTrainer) -> dict:
        if next(epochs) == 1 + (cut == "last broken"):
            raise KeyboardInterrupt
        return whole(trainer)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit.FoldTrainer, "_try_out", interrupted)
        train(copied, "full1", "--set=train.epochs=4")
    if cut == "last broken":
        (folder / "last.pt").write_bytes(b"half")
    capsys.readouterr()
    train(copied, "full")
    printed = capsys.readouterr().out
    assert "fold full0: already finished, skipped" in printed
    assert "fold full1: encoder tu-test_resnet, going on after epoch 1" in printed
    assert "full1: trained on all images" in printed and "Out-of-fold scores" not in printed
    for name in ("last.pt", "weights.safetensors", "fold.json"):
        expected = (work / "oof/demo/fold_full1" / name).read_bytes()
        assert (folder / name).read_bytes() == expected, name


@pytest.mark.slow
def test_weights_ruined_by_the_last_step_are_not_kept(copied: Path) -> None:
    experiment = open_experiment("demo", copied / "oof")
    one_step = {"batch_size": 10, "lr": 1e30}  # Its loss is finite.
    options = experiment.config.train.model_copy(update=one_step)
    config = experiment.config.model_copy(update={"train": options})
    shutil.rmtree(copied / "oof/demo/fold_full0")
    with pytest.raises(UserError, match=r"fold full0, epoch 1: .* weights are ruined; .*none yet"):
        fit.FoldTrainer(replace(experiment, config=config), "full0", CPU).run()
    assert not list((copied / "oof/demo/fold_full0").glob("*.pt"))


@pytest.mark.slow
def test_before_the_folds_it_says_what_to_type(copied: Path) -> None:
    with pytest.raises(UserError, match=r"fold 0, 1, 2 is not finished; run --fold 0,1,2 first"):
        train(copied, "full", oof="new")
    assert not list((copied / "new/demo").glob("fold_*"))
    with pytest.raises(
        UserError, match=r"--fresh .*all folds anew, too: use --fold all,full0,full1"
    ):
        train(copied, "0,full", "--fresh")
    assert (copied / "oof/demo/cv.json").exists()


@pytest.mark.slow
def test_how_many_there_are_may_change(copied: Path, capsys) -> None:
    folder = train(copied, "full", "--set=folds.full=3")
    assert capsys.readouterr().out.count("already finished, skipped") == 2
    assert (folder / "fold_full2/fold.json").exists()
    assert load_config(folder / "config.yaml").folds.full == 3


# Predicting


def probabilities(work: Path, *folds: int | str) -> list[np.ndarray]:
    experiment = open_experiment("demo", work / "oof")
    predictor, _ = load_predictor(experiment, list(folds), CPU, tta=True)
    source, ids = FrameFolder(work / "data", "test"), list_ids(work / "data", "test")
    return [one.probabilities.numpy() for one in predictor.predict(source, ids)]


@pytest.mark.slow
def test_both_are_the_mean_of_all_networks(work: Path) -> None:
    folds, full = probabilities(work, 0, 1, 2), probabilities(work, "full0", "full1")
    both = probabilities(work, 0, 1, 2, "full0", "full1")
    for one, other, mean in zip(folds, full, both, strict=True):
        assert np.abs(one - other).max() > 0.01
        assert np.allclose(mean, (3 * one + 2 * other) / 5, atol=1e-6)


def predict(work: Path, *more: str, name: str = "demo") -> Path:
    place = ["--oof", str(work / "oof"), "--submissions", str(work / "out")]
    infer.main(["--experiment", name, "--tta", *place, *more])
    return work / "out"


@pytest.mark.slow
def test_a_submission_says_which_networks_made_it_and_what_covers_them(
    copied: Path, capsys
) -> None:
    line = "no out-of-fold score covers full0, full1: trained on all images"
    for fold in ("all", "full", "all,full", "full1"):
        out = predict(copied, "--fold", fold)
        printed = capsys.readouterr().out
        assert (line in printed) == (fold in ("full", "all,full")), fold
        assert ("out-of-fold mIoU: 0." in printed) == (fold in ("all", "all,full")), fold
    cv = read_json(copied / "oof/demo/cv.json")["miou"]
    full = read_json(out / "demo_full_tta/manifest.json")
    both = read_json(out / "demo_all_full_tta/manifest.json")
    names = ["full0", "full1"]
    hashes = [read_json(copied / f"oof/demo/fold_{k}/weights.json")["sha256"] for k in names]
    assert full["cv"] is None and full["folds"] == dict(zip(names, hashes, strict=True))
    assert both["cv"]["miou"] == cv and list(both["folds"]) == ["0", "1", "2", *names]
    masks = [
        np.load(out / f"demo{subset}_tta/submission.npy")
        for subset in ("", "_full", "_all_full", "_foldfull1")
    ]
    assert all((a != b).any() for i, a in enumerate(masks) for b in masks[:i])
    paths = [str(out / f"demo_{k}_tta") for k in ("foldfull1", "full", "all_full")]
    score.main([*paths, str(copied / "data/test_label")])
    table = read_table(capsys.readouterr().out, "submission")
    assert [row["OOF mIoU"] for row in table.values()] == ["-", "-", f"{cv:.4f}"]


@pytest.mark.slow
def test_one_that_is_not_trained_is_named(copied: Path) -> None:
    shutil.rmtree(copied / "oof/demo/fold_full1")
    with pytest.raises(UserError, match=r"fold full1 is not trained; run .* --fold full1'"):
        predict(copied, "--fold", "full")
    with pytest.raises(UserError, match=r"fold full1 is not trained"):
        package(copied, "all,full")
    predict(copied, "--fold", "all,full0", "--format", "png")


@pytest.mark.slow
def test_weights_of_a_fold_do_not_pass_for_one_on_all_images(copied: Path) -> None:
    folder = copied / "oof/demo"
    for name in ("weights.safetensors", "weights.json"):
        shutil.copy(folder / "fold_0" / name, folder / "fold_full0" / name)
    with pytest.raises(UserError, match=r"fold_full0: these weights"):
        predict(copied, "--fold", "full")


def package(work: Path, fold: str) -> Path:
    place = ["--oof", str(work / "oof"), "--output", str(work / "kaggle")]
    options = ["--owner", "alice", "--experiment", "demo", "--precision", "fp32", "--fold", fold]
    package_kernel.main([*options, *place])
    return work / "kaggle"


@pytest.mark.slow
def test_the_kernel_gives_the_same_bytes(copied: Path, capsys) -> None:
    out = predict(copied, "--fold", "all,full")
    capsys.readouterr()
    kaggle = package(copied, "all,full")
    assert "no out-of-fold score covers full0, full1" in capsys.readouterr().out
    facts = read_json(kaggle / "dataset/manifest.json")
    assert list(facts["folds"]) == ["0", "1", "2", "full0", "full1"] and facts["cv"]
    submission = ["--submission", str(out / "demo_all_full_tta")]
    check_kernel.main([*submission, "--input", str(copied / "data"), "--kernel", str(kaggle)])
    assert "the kernel gives the masks of infer.py" in capsys.readouterr().out
    facts = read_json(package(copied, "full") / "dataset/manifest.json")
    assert list(facts["folds"]) == ["full0", "full1"] and facts["cv"] is None


@pytest.mark.slow
def test_a_blend_predicts_with_its_members_networks_on_all_images(copied: Path) -> None:
    twin = Path(shutil.copytree(copied / "oof/demo", copied / "oof/twin"))
    text = (twin / "config.yaml").read_text()
    (twin / "config.yaml").write_text(text.replace("name: demo", "name: twin"))
    blend.main(["demo", "twin", "--name", "both", "--oof", str(copied / "oof")])
    for name in ("demo", "both"):
        out = predict(copied, "--fold", "full", "--format", "npy", name=name)
    found = [np.load(out / f"{name}_full_tta/submission.npy") for name in ("demo", "both")]
    assert np.mean(found[0] == found[1]) > 0.999
    manifest = read_json(out / "both_full_tta/manifest.json")
    assert manifest["cv"] is None and set(manifest["folds"]["full1"]) == {"demo", "twin"}
    record = twin / "fold_2/weights.json"
    record.write_text(json.dumps({**read_json(record), "sha256": "0" * 64}))
    with pytest.raises(UserError, match="twin was trained again since it was blended"):
        predict(copied, "--fold", "full", name="both")
