"""From what a camera sees to what a camera records: photo, depth map and drawn labels."""

import cv2
import numpy as np

from nyuseg.data.classes import VOID
from nyuseg.demo.materials import Rng
from nyuseg.demo.shapes import LABEL_ID


def photo(
    light: np.ndarray, white: tuple[float, float, float], exposure: float, rng: Rng
) -> np.ndarray:
    """Turn linear RGB [H,W,3] into an 8-bit photo: exposure, white balance, blur, noise."""
    height, width = light.shape[:2]
    # Like a camera's automatic exposure: the middle tone of the frame decides, not the window.
    level = 0.2 * exposure * rng.uniform(0.92, 1.08) / max(float(np.median(light)), 1e-3)
    x = (np.arange(width) + 0.5) / width - 0.5
    y = (np.arange(height) + 0.5) / height - 0.5
    vignette = (1 - 0.45 * (x[None, :] ** 2 + y[:, None] ** 2))[..., None]
    seen = light * level * vignette * np.array(white)
    seen = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), max(0.35, 0.55 * width / 320))
    shot = rng.standard_normal(seen.shape, np.float32)
    seen = seen + shot * np.sqrt(0.0004 * seen + 1.5e-5)
    # A soft shoulder keeps the colours of what is bright.
    tone = 1.12 * (1 - np.exp(-1.5 * np.maximum(seen, 0)))
    return (np.clip(tone, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)


def _blobs(shape: tuple[int, int], rng: Rng, size: float) -> np.ndarray:
    """Smooth noise of mean 0 and deviation 1, float32 [H,W]; `size`: features per image width."""
    rows = max(2, round(size * shape[0] / shape[1]))
    coarse = rng.standard_normal((rows, max(2, round(size))), np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _step(values: np.ndarray) -> np.ndarray:
    """The largest difference to the right and the lower neighbour, [H,W]."""
    step = np.zeros(values.shape, np.float32)
    step[:, :-1] = np.abs(np.diff(values, axis=1))
    step[:-1] = np.maximum(step[:-1], np.abs(np.diff(values, axis=0)))
    return step


def _widen(mask: np.ndarray, pixels: float, rng: Rng) -> np.ndarray:
    """Widen a mask bool [H,W] of one pixel wide lines to `pixels`; below 1, keep that share."""
    if pixels < 1:
        return mask & (rng.random(mask.shape) < pixels)
    size = round(pixels)
    return cv2.dilate(mask.astype(np.uint8), np.ones((size, size), np.uint8)) > 0


def depth_map(depth: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """Turn z depth in metres [H,W] into uint16 millimetres with the faults of a Kinect.

    The noise and the steps grow with the square of the depth; pixels are missing at depth edges,
    in patches on televisions and windows and now and then elsewhere.
    """
    width = depth.shape[1]
    grain = cv2.GaussianBlur(rng.standard_normal(depth.shape, np.float32), (0, 0), 0.6)
    measured = depth + grain * (0.001 + 0.003 * depth**2)
    # The sensor measures disparity in whole steps of an eighth of a pixel.
    steps = np.round(1 / np.maximum(measured, 0.3) / 0.00285)
    millimetres = np.round(1000 / (0.00285 * np.maximum(steps, 1)))
    edge = _widen(_step(depth) > 0.06 * depth, 2 * width / 320, rng)
    missing = edge & (_blobs(depth.shape, rng, 40) > 0.2)
    glossy = (label == LABEL_ID["tv"]) | (label == LABEL_ID["window"])
    missing |= glossy & (_blobs(depth.shape, rng, 14) > 1.0)
    missing |= _blobs(depth.shape, rng, 30) > 2.3
    missing |= (depth < 0.45) | (depth > 9.5)
    return np.where(missing, 0, np.clip(millimetres, 0, 10000)).astype(np.uint16)


def drawn_labels(label: np.ndarray, rng: Rng) -> np.ndarray:
    """A mask uint8 [H,W] of 0..12 with void (255) along the borders and in a few patches."""
    border = _widen(_step(label.astype(np.float32)) > 0, 2 * label.shape[1] / 320, rng)
    patches = _blobs(label.shape, rng, 12) > 2.1
    return np.where(border | patches, VOID, label).astype(np.uint8)
