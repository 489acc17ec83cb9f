"""How high above the floor each pixel is that a depth image shows.

Gupta, Girshick, Arbelaez & Malik (ECCV 2014) give a network this height beside the depth. How they
find the direction of gravity is in their CVPR 2013 paper, section 4: it runs along the walls, and
across the floor, the ceiling and the tables.
"""

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
import torch

from nyuseg.data.depth import DEPTH_MAX
from nyuseg.dataloading.slopes import FOCAL

# Surfaces are seen in squares, so many along the frame's width: at a width of 640, of 2x2 pixels,
# and of 8x8 to find the gravity.
FINE, COARSE = 320, 80
# How they stand is told of their mean over so many squares along and across.
SMOOTHING = 7
# Share of a square's pixels whose depth must be known: few are enough for a mean.
KNOWN = 0.1
# In each round, a surface counts that is within this angle of being across or along what the last
# round found.
ROUNDS = np.radians([45.0] * 5 + [15.0] * 5)
# Nearness of a frame's squares, see nearness.
Cells = tuple[np.ndarray, np.ndarray]
# What the last round's direction counts for, as a share of all surfaces.
FAITH = 0.01
# A frame that is held level.
DOWN = np.array([0.0, 1.0, 0.0])
# What is below this share of the pixels is a wrong depth, not the floor.
LOWEST = 0.005


def frame_geometry(depth: np.ndarray, kinds: Sequence[str]) -> dict[str, np.ndarray]:
    """What each pixel's depth says together with the gravity: floor_heights and upwardness.

    depth: uint16 [H,W] in millimetres, of a whole frame; kinds: of values.GEOMETRY.
    """
    cells = nearness(depth)
    gravity = find_gravity(unit_normals(cells, COARSE))
    found = {}
    if "height" in kinds:
        found["height"] = floor_heights(depth, gravity)
    if "upward" in kinds:
        found["upward"] = upwardness(depth, cells, gravity)
    return found


def floor_heights(depth: np.ndarray, gravity: np.ndarray) -> np.ndarray:
    """Height of each pixel above the lowest that the frame shows: uint16 [H,W] in millimetres.

    depth: uint16 [H,W] in millimetres; 0, missing, gives 0, and nothing else does. gravity: unit
    vector [3]. A frame that shows no floor counts from the lowest thing in it, within 10 m.
    """
    right, down, forward = gravity.astype(np.float32)
    x, y = _rays(*depth.shape)
    below = depth * (right * x + (down * y[:, None] + forward))
    known = depth > 0
    step = 4 if known[::4, ::4].any() else 1  # A sparse depth may lie between them.
    some = depth[::step, ::step]
    # What is farther than a room is wide is an error, if there is anything nearer.
    near = (some > 0) & (some <= 1000 * DEPTH_MAX)
    sample = near if near.any() else some > 0
    if not sample.any():
        return np.zeros_like(depth)
    floor = np.quantile(below[::step, ::step][sample], 1 - LOWEST)
    above = np.subtract(np.float32(floor + 0.5), below, out=below)  # Rounded by what follows.
    return np.clip(above, 1, 2**16 - 1, out=above).astype(np.uint16) * known


def upwardness(depth: np.ndarray, cells: Cells, gravity: np.ndarray) -> np.ndarray:
    """How far each pixel's surface faces upwards, uint8 [H,W]: the cosine c of its angle to the
    vertical as 128 + 127 c, so that 1 is a ceiling, 128 a wall, 255 the floor; 0 is missing.

    depth, cells: of the frame, see nearness; gravity: unit vector [3].
    """
    square = (SMOOTHING, SMOOTHING)
    normals, there = surface_normals(cv2.blur(cells[0], square), cv2.blur(cells[1], square))
    along = sum(plane * np.float32(part) for plane, part in zip(normals, gravity, strict=True))
    length = np.sqrt(sum(plane * plane for plane in normals))
    cosine = along / np.maximum(length, 1e-9)
    coded = (128.5 + 127 * cosine).astype(np.uint8) * there
    rim = SMOOTHING // 2 + 1  # There a mean's middle lies off the square, and a slope is less.
    if min(coded.shape) > 2 * rim:
        coded = np.pad(coded[rim:-rim, rim:-rim], rim, mode="edge")
    coded = cv2.resize(coded, depth.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return coded * (depth > 0)


def height_code(height: torch.Tensor) -> torch.Tensor:
    """Millimetres above the floor as -1..1, of 3 m and more 1; 0 where it is missing."""
    return (height / 1500 - 1).clamp(max=1) * (height > 0)


def upward_code(upward: torch.Tensor) -> torch.Tensor:
    """The cosine of upwardness, -1..1; 0 where it is missing."""
    return (upward - 128) / 127 * (upward > 0)


def nearness(depth: np.ndarray) -> Cells:
    """1/depth where it is known, else 0, and the share that is known: float32 [h,w] each, means
    over a frame's squares. depth: uint16 [H,W] in millimetres."""
    columns = min(FINE, depth.shape[1])
    size = columns, max(1, round(depth.shape[0] * columns / depth.shape[1]))
    pixels = _nearness_table().take(depth), (depth > 0).astype(np.float32)
    near, known = (cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in pixels)
    return near, known


@cache
def _nearness_table() -> np.ndarray:
    return np.concatenate([[0], 1 / np.arange(1, 2**16)]).astype(np.float32)


def surface_normals(near: np.ndarray, known: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Normals of the surfaces in squares of a frame, of any length, as their parts to the right,
    downwards and forwards, float32 [h,w] each, and where they are known, uint8 [h,w].

    near, known: see nearness. A plane n . P = c has the depth z along the ray (x, y, 1) for which
    1/z is linear in x and y: n is in proportion to d(1/z)/dx, d(1/z)/dy and what is left of 1/z at
    x = y = 0, and a mean over a square is the value in its middle. n points away from the camera.
    """
    mean = near / np.maximum(known, 1e-6)
    x, y = _rays(*mean.shape)
    step = np.array([[-1, 0, 1]], np.float32) * np.float32(FOCAL * max(mean.shape) / 2)
    right, down = (
        cv2.filter2D(mean, -1, kernel, borderType=cv2.BORDER_REPLICATE) for kernel in (step, step.T)
    )
    around = np.ones((3, 3), np.uint8)
    there = cv2.erode((known > KNOWN).astype(np.uint8), around)
    return [right, down, mean - right * x - down * y[:, None]], there


def unit_normals(cells: Cells, columns: int) -> np.ndarray:
    """The surfaces' normals in larger squares, float64 [N,3] of length 1; see surface_normals."""
    height, width = cells[0].shape
    columns = min(columns, width)
    size = columns, max(1, round(height * columns / width))
    normals, there = surface_normals(
        *(cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in cells)
    )
    inner = np.s_[1:-1, 1:-1]  # At the frame's edge a slope is but half of one.
    flat = np.stack([plane[inner] for plane in normals], -1)[there[inner] > 0].astype(np.float64)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def find_gravity(normals: np.ndarray) -> np.ndarray:
    """The direction in which things fall, a unit vector, float64 [3], by the normals of surfaces.

    normals: float64 [N,3]. Downwards in the picture where there are none to tell; the camera must
    be within 45 degrees of level, or the floor is taken for a wall. Each round takes the direction
    g for which the sum of (n . g)^2 over the surfaces across the last one, minus that over the
    surfaces along it, is largest; a little is added for being the last one, since in a frame that
    shows one wall every direction along it would do.
    """
    gravity = DOWN
    for angle in ROUNDS:
        steepness = np.abs(normals @ gravity)
        level, upright = normals[steepness > np.cos(angle)], normals[steepness < np.sin(angle)]
        if not len(level) + len(upright):
            return gravity
        last = FAITH * len(normals) * np.outer(gravity, gravity)
        found = np.linalg.eigh(level.T @ level - upright.T @ upright + last)[1][:, -1]
        gravity = found * (1 if found @ gravity >= 0 else -1)
    return gravity


def _rays(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """x of each column, y of each row, in focal lengths from the middle: float32 [W], [H]. A frame
    that is higher than wide is of a camera that was turned."""
    focal = FOCAL * max(height, width)
    x, y = ((np.arange(n, dtype=np.float32) + 0.5 - n / 2) / focal for n in (width, height))
    return x, y
