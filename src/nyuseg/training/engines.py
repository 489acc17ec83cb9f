"""What trains folds when this process does not train them itself, one after the other."""

import sys
from pathlib import Path

from nyuseg.training.pipeline import TrainEach
from nyuseg.training.ray_folds import on_ray
from nyuseg.training.side_by_side import at_most, side_by_side


def pick_engine(
    script: Path, parallel: int | None, address: str | None
) -> tuple[TrainEach | None, int]:
    """What --parallel and --ray ask for, None without them, and how many folds it trains at once.

    script: that of train_folds.py; parallel: as parse_parallel has it.
    """
    if address is not None:
        return on_ray(script, address), sys.maxsize  # As many as the cluster has room for.
    if parallel is None:
        return None, 1
    return side_by_side(script, parallel), at_most(parallel)
