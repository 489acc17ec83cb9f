"""The checkpoints of a fold that could predict, compared on its held-out images."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nyuseg.evaluation.bootstrap import difference
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.records import Estimate
from nyuseg.utils.arrays import write_npz
from nyuseg.utils.errors import UserError

CHECKPOINTS = ("best", "last", "ema", "mean")
HALVES = "halves"


def write_confusions(
    path: Path, confusions: Mapping[str, np.ndarray], halves: Sequence[list[Any]]
) -> None:
    """Write a fold's scores of its checkpoints, an .npz file.

    confusions: for each kind of checkpoint int [n,13,13], the held-out images in the order of
    their ids. halves: for each epoch optimism.half_sums, int [2,13,13].
    """
    arrays: dict[str, Any] = {kind: found.astype(np.int32) for kind, found in confusions.items()}
    arrays[HALVES] = np.array(halves, np.int64)
    write_npz(path, arrays)


def read_confusions(experiment: Experiment) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """The confusion matrices of each kind of checkpoint, and the halves of each fold.

    int64 [n,13,13] in the order of the fold table; [epochs,2,13,13] for each fold. Raises
    UserError, naming the file, for one that is missing, broken or of another fold table.
    """
    folds = [_read(experiment, fold) for fold in range(experiment.config.folds.count)]
    side = experiment.table["fold"].to_numpy()
    confusions = {}
    for kind in CHECKPOINTS:
        if kind in folds[0]:
            confusions[kind] = np.zeros((len(side), *folds[0][kind].shape[1:]), np.int64)
            for fold, arrays in enumerate(folds):
                confusions[kind][side == fold] = arrays[kind]
    return confusions, [arrays[HALVES] for arrays in folds]


def over_last(
    confusions: Mapping[str, np.ndarray], kind: str, experiment: Experiment
) -> Estimate | None:
    """By how much a kind beats the last epochs, over scenes; None for `last` itself.

    confusions: of read_confusions.
    """
    if kind == "last":
        return None
    return difference(confusions[kind], confusions["last"], experiment.table["scene"])


def _read(experiment: Experiment, fold: int) -> dict[str, np.ndarray]:
    path = experiment.fold_files(fold).checkpoint_scores
    advice = "copy the fold again, or train it anew"
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile):
        raise UserError(f"{path}: cannot be read; {advice}") from None
    averages = {"ema": experiment.config.train.ema, "mean": experiment.config.train.mean_last}
    wanted = {"best", "last", HALVES, *(kind for kind, wish in averages.items() if wish)}
    if not wanted <= set(arrays):
        raise UserError(f"{path}: lacks {', '.join(sorted(wanted - set(arrays)))}; {advice}")
    count = len(experiment.ids(fold, held_out=True))
    if any(len(arrays[kind]) != count for kind in CHECKPOINTS if kind in arrays):
        raise UserError(f"{path}: of another fold table; {advice}")
    return arrays
