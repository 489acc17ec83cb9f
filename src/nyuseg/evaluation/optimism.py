"""What it is worth to choose an epoch by its score, and how much of that score is luck."""

from collections.abc import Sequence

import numpy as np

from nyuseg.evaluation.metrics import mean_iou
from nyuseg.experiment.records import Optimism


def scene_halves(scenes: Sequence[str]) -> np.ndarray:
    """The half, 0 or 1, of each of n images; int [n].

    Whole scenes, in the order of their names alternately: names begin with the kind of room, so
    both halves hold some of each.
    """
    return np.unique(np.asarray(scenes), return_inverse=True)[1] % 2


def half_sums(confusions: np.ndarray, scenes: Sequence[str]) -> np.ndarray:
    """Confusion matrices of the two halves of n images, int [n,13,13] to [2,13,13]."""
    halves = scene_halves(scenes)
    return np.stack([confusions[halves == half].sum(0) for half in (0, 1)])


def optimism(folds: Sequence[np.ndarray]) -> Optimism | None:
    """How optimistic the score of a fold's best epoch is, pooled over folds.

    folds: for each fold the half_sums of all epochs, int [epochs,2,13,13]. Returns mIoUs:
    `same`, each fold's epoch chosen on all its held-out images and scored on them; `other`, chosen
    on one half of the rooms and scored on the other, both ways; `last`, the last epochs; and
    `optimism` = same - other, `gain` = other - last, which is what choosing an epoch brings on
    rooms that had no say in it. A choice by half the rooms is a little worse than one by all, so
    the optimism is rather too large than too small. None when a half of
    a fold has no pixel (it has one room).
    """
    if not folds or not all(fold.sum((2, 3)).all() for fold in folds):
        return None
    same, other, last = np.zeros((3, *folds[0].shape[-2:]), np.int64)
    for epochs in folds:
        same = same + epochs[_best(epochs.sum(1))].sum(0)
        for half in (0, 1):
            other = other + epochs[_best(epochs[:, 1 - half]), half]
        last = last + epochs[-1].sum(0)
    scores = {"same": same, "other": other, "last": last}
    found = {name: float(mean_iou(confusion)) for name, confusion in scores.items()}
    luck, gain = found["same"] - found["other"], found["other"] - found["last"]
    return Optimism(**found, optimism=luck, gain=gain)


def _best(confusions: np.ndarray) -> int:
    """The first epoch with the highest score, [epochs,13,13]: as training chooses it."""
    return int(np.argmax(mean_iou(confusions)))
