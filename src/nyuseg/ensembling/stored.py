"""Mixing the out-of-fold probabilities that experiments have stored. It never sees a label."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from nyuseg.experiment.folder import Experiment
from nyuseg.inference.grid import from_grid, largest_first, regrid, to_mask
from nyuseg.utils.arrays import map_array
from nyuseg.utils.errors import UserError


class StoredGrids:
    """The stored probabilities of some experiments over the same images, one image at a time.

    All are brought to one grid, as predictor.Predictor does it: that of the largest input, `size`.
    Raises UserError for a file that does not hold what its fold's ids say.
    """

    def __init__(self, members: Sequence[Experiment]) -> None:
        self.sizes = [member.config.data.size for member in members]
        self.size = largest_first(self.sizes)[0]
        self.places = [_places(member) for member in members]

    def read(self, image_id: str, native: tuple[int, int]) -> torch.Tensor:
        """Each member's probabilities of an image of `native` size: float32 [M,13,h,w]."""
        grids = []
        for places, size in zip(self.places, self.sizes, strict=True):
            path, index = places[image_id]
            # Mapped anew: of one long map, each page read would count as this process's memory.
            grid = torch.from_numpy(np.array(map_array(path)[index], np.float32))
            grids.append(regrid(grid, native, size, self.size))
        return torch.stack(grids)

    def at_pixels(
        self, grids: torch.Tensor, native: tuple[int, int], pixels: np.ndarray
    ) -> torch.Tensor:
        """Probabilities of what `read` gave at some native pixels: float16 [M,13,n].

        pixels: int [n], positions in the flattened image.
        """
        members, classes = grids.shape[:2]
        full = from_grid(grids.flatten(0, 1), native, self.size).flatten(1)
        chosen = full[:, torch.from_numpy(pixels)]
        return chosen.view(members, classes, -1).half()

    def mask(
        self, grids: torch.Tensor, native: tuple[int, int], weights: Sequence[float]
    ) -> np.ndarray:
        """The mask of a weighted mean of what `read` gave: uint8 [native], 0..12."""
        parts = zip(grids, weights, strict=True)
        mean = sum(grid * weight for grid, weight in parts if weight)
        return to_mask(mean, native, self.size)


def _places(member: Experiment) -> dict[str, tuple[Path, int]]:
    """File and entry of each image's probabilities."""
    places: dict[str, tuple[Path, int]] = {}
    for fold in range(member.config.folds.count):
        files = member.fold_files(fold)
        path, ids = files.probabilities, files.read_ids()
        if len(map_array(path)) != len(ids):
            raise UserError(f"{path}: {len(map_array(path))} entries for {len(ids)} images")
        places |= {image_id: (path, index) for index, image_id in enumerate(ids)}
    return places
