"""Is there room on the disk for what a run will write?"""

import shutil
from pathlib import Path

import torch

from nyuseg.data.classes import NUM_CLASSES
from nyuseg.data.frame_cache import cache_bytes, cache_folder
from nyuseg.data.letterbox import STRIDE
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.training_data import cache_parent
from nyuseg.models.network import build_model
from nyuseg.utils.errors import UserError

# A finished fold keeps its weights five times: AdamW's checkpoint holds them and two moments,
# best.pt and the release once each. While it trains, previous.pt and the checkpoint being written
# add three times each. An average of the weights adds one to each checkpoint.
KEPT, WORKING = 5, 6
# An image's confusion matrices: two in last.pt and in previous.pt, one in best.pt (int64), and
# four in checkpoints.npz (int32).
MATRICES = (5 * 8 + 4 * 4) * NUM_CLASSES**2


def required_bytes(experiment: Experiment, folds: list[int]) -> int:
    """Bytes that training these folds will add to the disk at most, masks included."""
    config = experiment.config
    try:
        with torch.device("meta"):  # Shapes alone: no memory, no weights.
            state = build_model(config.model, config.data, pretrained=False).state_dict()
    except (UserError, RuntimeError):  # Some encoders compute while they are built.
        state = build_model(config.model, config.data, pretrained=False).state_dict()
    weights = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    height, width = config.data.size
    grid = (height // STRIDE) * (width // STRIDE) * 2  # float16
    # A mask compresses to a few kilobytes; a pixel a byte would be the worst.
    image = grid * (NUM_CLASSES + 1) + height * width // 8 + MATRICES
    images = sum(len(experiment.ids(fold, held_out=True)) for fold in folds)
    averages = sum(wish is not None for wish in (config.train.ema, config.train.mean_last))
    times = (KEPT + averages) * len(folds) + WORKING + 2 * averages
    return weights * times + image * images + _cache_bytes(experiment)


def _cache_bytes(experiment: Experiment) -> int:
    """What a frame cache will take beside the experiments; one elsewhere looks after itself."""
    if experiment.config.compute.cache != "auto":
        return 0
    if cache_folder(experiment.input, cache_parent(experiment)).exists():
        return 0
    return cache_bytes(experiment.input, len(experiment.table))


def require_space(experiment: Experiment, folds: list[int]) -> None:
    """Raise UserError when the disk cannot hold what the folds will write."""
    if not folds:
        return
    there = (p for fold in folds for p in experiment.fold_folder(fold).glob("*"))
    needed = required_bytes(experiment, folds) - sum(path.stat().st_size for path in there)
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
