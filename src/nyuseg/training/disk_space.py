"""Is there room on the disk for what a run will write?"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from nyuseg.data.fold_names import Fold
from nyuseg.data.frame_cache import cache_bytes, cache_folder
from nyuseg.experiment.fold_files import kept_bytes, working_bytes
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.training_data import cache_parent
from nyuseg.models.skeleton import build_skeleton
from nyuseg.utils.errors import UserError

Todo = tuple[Experiment, Sequence[Fold]]  # An experiment and those of its folds that are to do.


def required_bytes(todo: Sequence[Todo], at_once: int = 1) -> int:
    """Bytes that training these folds, so many at once, will add to the disk at most, masks
    included.

    Frame caches beside the experiments are counted once each; one elsewhere looks after itself.
    """
    caches = {
        cache_folder(one.input, cache_parent(one)): one
        for one, folds in todo
        if folds and one.config.compute.cache == "auto"
    }
    new = [one for path, one in caches.items() if not path.exists()]
    decoded = sum(cache_bytes(one.input, len(one.table)) for one in new)
    begun = [(one, folds) for one, folds in todo if folds]
    parts = [_kept_and_working(one, folds) for one, folds in begun]
    working = [each for (_, each), (_, folds) in zip(parts, begun, strict=True) for _ in folds]
    kept = sum(left for left, _ in parts)
    return decoded + kept + sum(sorted(working, reverse=True)[:at_once])


def _kept_and_working(experiment: Experiment, folds: Sequence[Fold]) -> tuple[int, int]:
    """Bytes that these folds leave, and those that one takes besides while it is trained."""
    config = experiment.config
    state = build_skeleton(config.model, config.data).state_dict()
    weights = sum(tensor.nbytes for tensor in state.values())
    images = sum(len(experiment.ids(fold, held_out=True)) for fold in folds)
    averages = sum(wish is not None for wish in (config.train.ema, config.train.mean_last))
    kept = kept_bytes(len(folds), weights, averages, images, config.data.size)
    return kept, working_bytes(weights, averages)


def require_space(todo: Sequence[Todo], at_once: int = 1) -> None:
    """Raise UserError when the disk cannot hold what the folds of all experiments will write.

    at_once: how many are trained side by side.
    """
    work = [(experiment, fold) for experiment, folds in todo for fold in folds]
    if not work:
        return
    there = sum(experiment.fold_files(fold).bytes_there() for experiment, fold in work)
    needed = required_bytes(todo, at_once) - there
    folder = work[0][0].folder
    free = free_bytes(folder)
    if needed > free:
        raise UserError(
            f"{folder if len(todo) == 1 else folder.parent}: {len(work)} folds need about "
            f"{needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; make room, use --oof on another "
            "disk, --set compute.cache=null, or train fewer folds at once"
        )


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the disk of a folder that exists."""
    return shutil.disk_usage(folder).free
