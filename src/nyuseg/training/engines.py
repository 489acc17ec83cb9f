"""What trains folds when this process does not train them itself, one after the other."""

from pathlib import Path

from nyuseg.training.pipeline import TrainEach
from nyuseg.training.ray_folds import on_ray
from nyuseg.training.side_by_side import side_by_side


def pick_engine(script: Path, parallel: int | None, address: str | None) -> TrainEach | None:
    """What --parallel and --ray ask for; None without them. script: that of train_folds.py;
    parallel: as parse_parallel has it."""
    if address is not None:
        return on_ray(script, address)
    return None if parallel is None else side_by_side(script, parallel)
