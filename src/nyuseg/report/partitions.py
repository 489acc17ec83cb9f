"""Pixels parted by what they are: how far away, how near a boundary, in how large a region.

Each way parts the pixels that have a label, so that the parts' confusion matrices add up to the
image's own.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from nyuseg.data.classes import NUM_CLASSES, VOID


@dataclass(frozen=True)
class Partition:
    """A way to part pixels: its title, the parts' names, and the limits between them.

    Part k has values from limits[k-1] up to, not including, limits[k]. rest: of pixels without a
    value; None when all have one.
    """

    title: str
    names: tuple[str, ...]
    limits: tuple[float, ...]
    rest: str | None = None

    @property
    def all_names(self) -> tuple[str, ...]:
        """Names of all parts, that of the rest last."""
        return self.names + ((self.rest,) if self.rest else ())

    def parts(self, values: np.ndarray) -> np.ndarray:
        """Which part each value, [H,W] with NaN where there is none, is in: int64 [H,W]."""
        found = np.digitize(values, self.limits)
        return np.where(np.isnan(values), len(self.names), found)


DEPTH = Partition(
    "Distance from the camera",
    ("below 1.5 m", "1.5 to 2.5 m", "2.5 to 4 m", "4 to 6 m", "6 m and more"),
    (1.5, 2.5, 4, 6),
    "no depth",
)
BOUNDARY = Partition(
    "Distance from a boundary between classes",
    ("1 or 2 pixels", "3 to 5", "6 to 10", "11 to 20", "21 and more"),
    (2.5, 5.5, 10.5, 20.5),
)
# Of the image: 0.05 % of 480x640 are 154 pixels.
REGION = Partition(
    "Size of the region, as a share of the image",
    ("below 0.05 %", "0.05 to 0.25 %", "0.25 to 1 %", "1 to 5 %", "5 % and more"),
    (0.0005, 0.0025, 0.01, 0.05),
)


def metres(depth: np.ndarray) -> np.ndarray:
    """Depth in metres, float [H,W], NaN where it is missing; depth: uint16 [H,W] in mm."""
    return np.where(depth > 0, depth / 1000, np.nan)


def boundary_distance(truth: np.ndarray) -> np.ndarray:
    """How many pixels each one is from the nearest of another class, float32 [H,W].

    At least 1, beside it; void counts as one more class. An image of one class has the distance to
    a corner of it everywhere. Distances are chamfer distances (Borgefors 1986, cv2's 5x5 mask).
    """
    inside = np.ones(truth.shape, np.uint8)
    for axis in (0, 1):
        edge = np.diff(truth.astype(np.int16), axis=axis) != 0
        before, after = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
        before[axis], after[axis] = (0, 1), (1, 0)
        inside[np.pad(edge, before) | np.pad(edge, after)] = 0
    if inside.all():
        return np.full(truth.shape, np.hypot(*truth.shape), np.float32)
    return np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 5)) + 1


def region_share(truth: np.ndarray) -> np.ndarray:
    """How large the connected region of its class is that a pixel lies in, float [H,W] of 0..1."""
    share = np.zeros(truth.shape)
    for value in np.unique(truth):
        inside = truth == value
        _, regions = cv2.connectedComponents(inside.view(np.uint8), connectivity=4)
        numbers = regions[inside]
        share[inside] = np.bincount(numbers)[numbers] / truth.size
    return share


def part_confusions(
    truth: np.ndarray, prediction: np.ndarray, parts: np.ndarray, count: int
) -> np.ndarray:
    """metrics.confusion_matrix of each part, int64 [count,13,13]; parts: of 0..count-1, [H,W]."""
    valid = truth != VOID
    index = parts[valid] * NUM_CLASSES + truth[valid]
    index = index * NUM_CLASSES + prediction[valid]
    counts = np.bincount(index, minlength=count * NUM_CLASSES**2)
    return counts.reshape(count, NUM_CLASSES, NUM_CLASSES)
