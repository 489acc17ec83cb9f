"""Is there room on the disk for what a run will write?"""

import shutil
from pathlib import Path

from nyuseg.data.fold_names import Fold
from nyuseg.data.frame_cache import cache_bytes, cache_folder
from nyuseg.experiment.fold_files import fold_bytes
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.training_data import cache_parent
from nyuseg.models.skeleton import build_skeleton
from nyuseg.utils.errors import UserError


def required_bytes(experiment: Experiment, folds: list[Fold]) -> int:
    """Bytes that training these folds will add to the disk at most, masks included."""
    config = experiment.config
    state = build_skeleton(config.model, config.data).state_dict()
    weights = sum(tensor.nbytes for tensor in state.values())
    images = sum(len(experiment.ids(fold, held_out=True)) for fold in folds)
    averages = sum(wish is not None for wish in (config.train.ema, config.train.mean_last))
    needed = fold_bytes(len(folds), weights, averages, images, config.data.size)
    return needed + _cache_bytes(experiment)


def _cache_bytes(experiment: Experiment) -> int:
    """What a frame cache will take beside the experiments; one elsewhere looks after itself."""
    if experiment.config.compute.cache != "auto":
        return 0
    if cache_folder(experiment.input, cache_parent(experiment)).exists():
        return 0
    return cache_bytes(experiment.input, len(experiment.table))


def require_space(experiment: Experiment, folds: list[Fold]) -> None:
    """Raise UserError when the disk cannot hold what the folds will write."""
    if not folds:
        return
    there = sum(experiment.fold_files(fold).bytes_there() for fold in folds)
    needed = required_bytes(experiment, folds) - there
    free = free_bytes(experiment.folder)
    if needed > free:
        raise UserError(
            f"{experiment.folder}: {len(folds)} folds need about {needed / 1e9:.2f} GB, "
            f"{free / 1e9:.2f} GB are free; make room, use --oof on another disk, "
            "--set compute.cache=null, or train fewer folds at once"
        )


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the disk of a folder that exists."""
    return shutil.disk_usage(folder).free
