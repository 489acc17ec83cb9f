"""The checkpoints of a fold that could predict, compared on its held-out images."""

import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nyuseg.evaluation.bootstrap import difference
from nyuseg.experiment.folder import Experiment
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import write_bytes

FILE = "checkpoints.npz"
KINDS = ("best", "last", "ema", "mean")
HALVES = "halves"


def write_confusions(
    folder: Path, confusions: Mapping[str, np.ndarray], halves: Sequence[list | None]
) -> None:
    """Write fold_k/checkpoints.npz.

    confusions: for each kind of checkpoint int [n,13,13], the held-out images in the order of
    oof_ids.txt. halves: for each epoch optimism.half_sums, int [2,13,13], or None where it was not
    kept; they are written when all were.
    """
    arrays = {kind: found.astype(np.int32) for kind, found in confusions.items()}
    if None not in halves:
        arrays[HALVES] = np.array(halves, np.int64)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(folder / FILE, buffer.getbuffer())


def read_confusions(experiment: Experiment) -> tuple[dict[str, np.ndarray], list]:
    """The confusion matrices of each kind of checkpoint that every fold has, and halves by fold.

    int64 [n,13,13] in the order of the fold table; [epochs,2,13,13] or None for each fold. A fold
    trained by an earlier version has none. Raises UserError, naming it, for a broken file.
    """
    folds = [_read(experiment, fold) for fold in range(experiment.config.folds.count)]
    side = experiment.table["fold"].to_numpy()
    confusions = {}
    for kind in KINDS:
        if all(kind in arrays for arrays in folds):
            confusions[kind] = np.zeros((len(side), *folds[0][kind].shape[1:]), np.int64)
            for fold, arrays in enumerate(folds):
                confusions[kind][side == fold] = arrays[kind]
    return confusions, [arrays.get(HALVES) for arrays in folds]


def over_last(
    confusions: Mapping[str, np.ndarray], kind: str, experiment: Experiment
) -> dict[str, float | None] | None:
    """By how much a kind beats the last epochs: a bootstrap.Estimate over scenes, as a dict.

    confusions: of read_confusions. None for `last` itself and for what was not kept.
    """
    if kind == "last" or not {kind, "last"} <= set(confusions):
        return None
    gain = difference(confusions[kind], confusions["last"], experiment.table["scene"])
    return {key: value if math.isfinite(value) else None for key, value in asdict(gain).items()}


def _read(experiment: Experiment, fold: int) -> dict[str, np.ndarray]:
    path = experiment.fold_folder(fold) / FILE
    if not path.exists():
        return {}
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except (ValueError, EOFError, zipfile.BadZipFile):
        raise UserError(f"{path}: cannot be read; copy the fold again, or remove it") from None
    count = len(experiment.ids(fold, held_out=True))
    if any(len(arrays[kind]) != count for kind in KINDS if kind in arrays):
        raise UserError(f"{path}: of another fold table; copy the fold again, or remove it")
    return arrays
