"""Experiments with made-up out-of-fold probabilities: what blending reads, without any training."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from nyuseg.config.loading import parse_config
from nyuseg.config.values import STRIDE
from nyuseg.data.folds import fold_hash
from nyuseg.data.frames import KINDS, Frame, png_path, read_label, write_png
from nyuseg.experiment.creation import create_experiment
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.records import EpochScore, FoldRecord, WeightsRecord
from nyuseg.inference.grid import to_mask
from nyuseg.utils.files import write_text

CELL = 8  # Pixels a side of a patch of one class.


def write_labels(root: Path, images: int, scenes: int, size: tuple[int, int], seed: int) -> None:
    """A data folder with labels of `size` for so many images in so many rooms, and no pictures."""
    rng = np.random.default_rng([seed, 1])
    rooms = np.sort(np.concatenate([np.arange(scenes), rng.integers(0, scenes, images - scenes)]))
    layouts = [rng.choice(13, 6, replace=False) for _ in range(scenes)]
    rows = []
    for number, room in enumerate(rooms):
        image_id = f"{number:06d}"
        patches = rng.choice(layouts[room], (-(-size[0] // CELL), -(-size[1] // CELL)))
        label = patches.repeat(CELL, 0).repeat(CELL, 1)[: size[0], : size[1]].astype(np.uint8)
        label[rng.random(label.shape) < 0.1] = 255
        frame: Frame = {"image": np.zeros((1, 1, 3), np.uint8), "depth": np.ones((1, 1), np.uint16)}
        for kind, pixels in {**frame, "label": label}.items():
            assert kind in KINDS["train"]
            write_png(png_path(root, "train", kind, image_id), pixels)
        rows.append(f"{image_id},room_{room:04d},any\n")
    write_text(root / "scenes.csv", "image_id,scene,scene_type\n" + "".join(rows))


def write_experiment(
    root: Path,
    oof: Path,
    name: str,
    skill: float,
    seed: int,
    input_size: tuple[int, int],
    good_at: Sequence[int] = (),
    group: str = "scene",
) -> Experiment:
    """A finished experiment whose probabilities are as good as `skill` says (0: random).

    good_at: classes at which it is twice as good. Each room is of a difficulty of its own, the same
    for all experiments.
    """
    data = {"size": list(input_size)}
    model = {"encoder_weights": None}
    values = {"name": name, "data": data, "model": model, "folds": {"group": group}}
    experiment = create_experiment(parse_config(values, "synthetic"), root, oof)
    difficulty = {
        room: np.random.default_rng([7, i]).uniform(0.5, 1.5)
        for i, room in enumerate(experiment.table["scene"].unique())
    }
    rooms = dict(zip(experiment.table["image_id"], experiment.table["scene"], strict=True))
    talent = np.full(13, skill)
    talent[list(good_at)] *= 2
    grid = input_size[0] // STRIDE, input_size[1] // STRIDE
    for fold in range(experiment.config.folds.count):
        ids = experiment.ids(fold, held_out=True)
        files = experiment.fold_files(fold)
        files.folder.mkdir(parents=True, exist_ok=True)
        shape = (len(ids), 13, *grid)
        file = np.lib.format.open_memmap(files.probabilities, "w+", np.float16, shape)
        for index, image_id in enumerate(ids):
            label = read_label(png_path(root, "train", "label", image_id))
            file[index] = _answer(label, grid, talent / difficulty[rooms[image_id]], seed, image_id)
            mask = to_mask(_tensor(file[index]), label.shape, input_size)
            write_png(experiment.mask_path(image_id), mask)
        files.write_ids(ids)
        score = EpochScore(epoch=1, confusion=[])
        facts = {"fold": fold, "epoch": 1, "best": score, "last": score, "environment": {}}
        FoldRecord(**facts).write(files.finished)
        WeightsRecord(
            **facts,
            experiment=name,
            checkpoint="best",
            folds=fold_hash(experiment.table),
            valid_ids=ids,
            sha256=f"{name} {fold}",
        ).write(files.weights_record)
    return experiment


def _answer(
    label: np.ndarray, grid: tuple[int, int], talent: np.ndarray, seed: int, image_id: str
) -> np.ndarray:
    rng = np.random.default_rng([seed, int(image_id)])
    truth = cv2.resize(label, grid[::-1], interpolation=cv2.INTER_NEAREST)
    logits = rng.standard_normal((13, *grid))
    for k in range(13):
        logits[k] += (truth == k) * talent[k]
    probability = np.exp(2 * logits)
    return probability / probability.sum(0)


def _tensor(grid: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(grid.astype(np.float32))
