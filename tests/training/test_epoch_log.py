"""What is seen of a fold while it trains: the line of an epoch, progress.png, TensorBoard."""

import csv
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import train_folds
from nyuseg.evaluation.history import Epoch
from nyuseg.evaluation.learning_curves import learning_curves
from nyuseg.experiment.fold_files import FoldFiles
from nyuseg.training import epoch_log
from nyuseg.training.epoch_log import EpochLog, Waiting, duration
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT

LINE = re.compile(r"fold (\d) epoch +(\d)/3 .* s, [\d.]+ img/s, (\d+)% waiting for data(.*)")


def epoch(number: int, **known: float) -> Epoch:
    names = "train_loss train_segmentation train_depth valid_loss valid_segmentation valid_depth"
    names += " valid_miou valid_pixel_accuracy"
    values = {name: known.get(name) for name in names.split()}
    return Epoch(epoch=number, lr=0.1 / number, skipped_steps=0, **values)


def picture(data: bytes) -> np.ndarray:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    return found


def test_durations_are_readable() -> None:
    found = [duration(seconds) for seconds in (0.4, 89, 91, 45 * 60, 5340, 5460, 7.5 * 3600)]
    assert found == ["0 s", "89 s", "2 min", "45 min", "89 min", "1 h 31 min", "7 h 30 min"]


def test_waiting_is_the_time_spent_on_items_not_on_their_use(monkeypatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(epoch_log.time, "monotonic", lambda: clock[0])

    def slow():
        for item in range(3):
            clock[0] += 2
            yield item
        clock[0] += 1

    waiting = Waiting()
    for _ in waiting.over(slow()):
        clock[0] += 10
    assert waiting.seconds == 7


def test_curves_grow_with_the_epochs_and_mark_the_best() -> None:
    rows = [
        epoch(number, train_loss=2 / number, valid_loss=2.5 / number, valid_miou=miou)
        for number, miou in enumerate((0.1, 0.4, 0.3), start=1)
    ]
    seconds = {1: 5.0, 2: 4.0, 3: 6.0}
    pictures = [picture(learning_curves("a", 9, rows[:n], seconds)) for n in (1, 2, 3)]
    assert len({shape.shape for shape in pictures}) == 1 and pictures[0].shape[2] == 3
    assert all((one != other).any() for one, other in pairwise(pictures))
    worse = [*rows[:2], epoch(3, train_loss=2 / 3, valid_loss=2.5 / 3, valid_miou=0.5)]
    assert (picture(learning_curves("a", 9, worse, seconds)) != pictures[2]).any()


def test_curves_of_a_network_without_held_out_images() -> None:
    rows = [epoch(n, train_loss=1 / n, train_segmentation=1 / n) for n in (1, 2)]
    assert picture(learning_curves("full0", 2, rows, {1: 1.0})).std() > 1


def test_short_epochs_are_not_all_drawn_but_the_last_is(monkeypatch, tmp_path: Path) -> None:
    clock, drawn = [0.0], []

    def drawing(title: str, *_: object) -> bytes:
        clock[0] += 0.5
        drawn.append(title)
        return b""

    monkeypatch.setattr(epoch_log.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr("nyuseg.evaluation.learning_curves.learning_curves", drawing)
    experiment = SimpleNamespace(short_notice="", config=SimpleNamespace(name="a"))
    log = EpochLog(experiment, FoldFiles(tmp_path), "fold 1", 12, later=0)
    for number in range(1, 13):
        clock[0] += 3
        log.epoch([epoch(number, train_loss=1.0)], {number: 3.0}, 8, 0.0, best=1)
    assert drawn == [f"a, fold 1, epoch {number} of 12" for number in (7, 11, 12)]


@pytest.fixture
def work(tiny_folder, tmp_path: Path) -> Path:
    tiny_folder(tmp_path / "data", [(32, 48)] * 9, list("aabbccdde"))
    return tmp_path


def train(work: Path, folds: str, *changes: str, epochs: int = 3) -> None:
    settings = ["model.encoder=tu-test_resnet", "data.size=[32,48]", "train.batch_size=2"]
    settings += [f"train.epochs={epochs}", "folds.count=3", "compute.precision=fp32", *changes]
    train_folds.main(
        ["--fold", folds, "--config", str(PROJECT / "configs/demo.yaml")]
        + ["--input", str(work / "data"), "--oof", str(work / "oof")]
        + [f"--set={text}" for text in settings]
    )


@pytest.mark.slow
def test_each_epoch_says_what_it_waited_and_what_is_left_and_is_drawn(work, capsys) -> None:
    train(work, "0,2")
    lines = [found for line in capsys.readouterr().out.splitlines() if (found := LINE.match(line))]
    assert [found.group(1, 2) for found in lines] == [(f, e) for f in "02" for e in "123"]
    assert all(0 <= int(found[3]) <= 100 for found in lines)
    left = [re.sub(r"\d+ s", "N s", found[4].replace(" *", "")) for found in lines]
    assert left[:3] == [", N s left for 2 folds"] * 3
    assert left[3:] == [", N s left"] * 2 + [""]
    for fold in "02":
        folder = work / f"oof/demo/fold_{fold}"
        seconds = [row["seconds"] for row in csv.DictReader((folder / "metrics.csv").open())]
        assert len(seconds) == 3 and picture((folder / "progress.png").read_bytes()).std() > 1


@pytest.mark.slow
def test_tensorboard_reads_back_the_metrics_and_pictures(work: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(work, "1", "compute.tensorboard=2")
    folder = work / "oof/demo/fold_1"
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    for tag, column in (("score/miou", "valid_miou"), ("loss/training_depth", "train_depth")):
        noted = {event.step: event.value for event in events.Scalars(tag)}
        assert noted == pytest.approx({int(r["epoch"]): float(r[column]) for r in rows}, rel=1e-5)
    assert {event.step for event in events.Scalars("iou/bed")} == {1, 2, 3}
    ids = (folder / "oof_ids.txt").read_text().split()
    tags = events.Tags()["images"]
    assert tags and {tag.rsplit("/", 1)[1] for tag in tags} <= set(ids) and len(tags) <= 4
    shown = events.Images(tags[0])
    assert [event.step for event in shown] == [2]
    strip = picture(shown[0].encoded_image_string)
    assert strip.shape[0] == 240 and strip.shape[1] > 3 * 240


@pytest.mark.slow
def test_what_is_watched_changes_nothing_that_is_trained(work: Path) -> None:
    train(work, "1", "compute.tensorboard=1")
    train(work, "1", "name=plain")
    one, other = (
        torch.load(work / f"oof/{name}/fold_1/last.pt", weights_only=True)["model"]
        for name in ("demo", "plain")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_without_its_package_tensorboard_is_refused_with_the_key(work: Path, monkeypatch) -> None:
    from nyuseg.training import tensorboard

    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"compute.tensorboard: .*pip install -e '\.\[tensorboard"):
        train(work, "1", "compute.tensorboard=1")
