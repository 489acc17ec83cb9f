"""What a browser gets of a frame: pictures, and arrays that it reads pixel by pixel.

A page from disk may show a picture but not read its pixels, and may load a script but no other
file. So the arrays travel in a script, as one deflated string.
"""

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from nyuseg.data.classes import colorize

IMAGE_QUALITY, THUMB_QUALITY = 60, 55
THUMB_SIZE, OVERLAY = (200, 150), 0.55  # Width and height: frames of another shape have a border.
TOP = 3  # Classes of which a cell's probability is told.
LEVEL = 6  # 9 takes four times as long for 3 % less.


def image_file(image: np.ndarray) -> bytes:
    """An image, uint8 [H,W,3], as WebP."""
    return _webp(image, IMAGE_QUALITY)


def thumbnail(image: np.ndarray, mask: np.ndarray) -> bytes:
    """A small WebP of an image, uint8 [H,W,3], under its mask, uint8 [H,W]; of THUMB_SIZE."""
    height, width = image.shape[:2]
    scale = min(THUMB_SIZE[0] / width, THUMB_SIZE[1] / height)
    size = [max(1, round(n * scale)) for n in (width, height)]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    classes = colorize(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST))
    mixed = small * (1 - OVERLAY) + classes * OVERLAY
    right, bottom = (n - m for n, m in zip(THUMB_SIZE, size, strict=True))
    sides = ((bottom // 2, bottom - bottom // 2), (right // 2, right - right // 2), (0, 0))
    return _webp(np.pad(mixed.astype(np.uint8), sides), THUMB_QUALITY)


def _webp(image: np.ndarray, quality: int) -> bytes:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])
    return data.tobytes()


def likeliest_classes(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The TOP likeliest classes of each cell, and how likely they are in per cent.

    probabilities: float [13,h,w]. Both uint8 [TOP,h,w]; a class of 0 % is given as 0, since
    which it was is noise.
    """
    order = np.argsort(-probabilities.astype(np.float32), axis=0, kind="stable")[:TOP]
    values = np.take_along_axis(probabilities, order, axis=0).astype(np.float32)
    percent = np.rint(np.clip(values, 0, 1) * 100).astype(np.uint8)
    return np.where(percent > 0, order, 0).astype(np.uint8), percent


def at_cells(values: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """Values, [H,W], at the middle of each cell of a grid that covers them: [cells]."""
    rows, columns = (
        ((np.arange(count) + 0.5) * size / count).astype(int)
        for count, size in zip(cells, values.shape, strict=True)
    )
    return values[np.ix_(rows, columns)]


def script(call: str, facts: dict[str, Any], arrays: Sequence[tuple[str, np.ndarray]]) -> str:
    """A script that calls a function with facts and arrays: `call({..., layout, data})`.

    layout: name, type and shape of each array, which follow one another, little endian, in the
    base64 of zlib's format. uint16 arrays hold the difference to the number left of each, at the
    left edge to 0, by which they deflate better.
    """
    layout, parts = [], []
    for name, array in arrays:
        layout.append([name, array.dtype.name, list(array.shape)])
        if array.dtype == np.uint16:
            array = np.diff(array, axis=-1, prepend=np.uint16(0))
            low, high = array & 0xFF, array >> 8
            parts += [low.astype(np.uint8).tobytes(), high.astype(np.uint8).tobytes()]
        else:
            parts.append(np.ascontiguousarray(array).tobytes())
    data = base64.b64encode(zlib.compress(b"".join(parts), LEVEL)).decode()
    return f"{call}({as_json({**facts, 'layout': layout, 'data': data})});\n"


def as_json(value: Any) -> str:
    """JSON that may stand in a script, in a page too: no `<`, no line separator of Unicode."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
