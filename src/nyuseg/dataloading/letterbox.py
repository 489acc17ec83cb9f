"""Letterboxing: frames of any size fitted into the network's input.

A frame is scaled with its aspect ratio kept and lies in the top left corner of the input; the
rest is padding. The scaled size is a multiple of the grid's stride, so that the frame's part of
the grid is cut out exactly. A 480x640 frame and a 480x640 input need neither.
"""

import cv2
import numpy as np

from nyuseg.config.values import STRIDE
from nyuseg.data.classes import VOID


def content_size(native: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Height and width that a frame of `native` size takes within an input of `size`."""
    scale = min(size[0] / native[0], size[1] / native[1])
    steps = (max(1, round(n * scale / STRIDE)) for n in native)
    height, width = (min(step * STRIDE, limit) for step, limit in zip(steps, size, strict=True))
    return height, width


def letterbox(frame: dict[str, np.ndarray], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Scale and pad the arrays of a frame to `size`.

    frame: image uint8 [H,W,3], and perhaps depth uint16, label uint8 and others, [H,W]. Colour is
    interpolated (averaged when shrinking); the rest takes the nearest pixel, because a mean of two
    depths or of two class ids belongs to neither surface. Padding: black, missing, void.
    Arrays that need neither come back as they are, not copied.
    """
    native = frame["image"].shape[:2]
    height, width = content_size(native, size)
    smooth = cv2.INTER_AREA if height < native[0] else cv2.INTER_LINEAR
    fitted = {}
    for kind, pixels in frame.items():
        if native != (height, width):
            method = smooth if kind == "image" else cv2.INTER_NEAREST_EXACT
            pixels = cv2.resize(pixels, (width, height), interpolation=method)
        if size != (height, width):
            border = [(0, size[0] - height), (0, size[1] - width)] + [(0, 0)] * (pixels.ndim - 2)
            pixels = np.pad(pixels, border, constant_values=VOID if kind == "label" else 0)
        fitted[kind] = pixels
    return fitted
