"""Run-length text of masks: 'start length start length ...' for each class."""

from itertools import pairwise

import cv2
import numpy as np

from nyuseg.data.classes import NUM_CLASSES, VOID
from nyuseg.utils.errors import UserError


def encode_mask(
    mask: np.ndarray, order: str = "column", base: int = 1, empty: str = ""
) -> list[str]:
    """Encode all classes of a mask, uint8 [H,W] of 0..12 or 255, in one pass over its runs.

    Returns 13 strings. order: `column` counts pixels down the columns, `row` along the rows;
    base: number of the first pixel, 0 or 1; empty: the text for a class without a pixel. Starts
    are absolute. A pixel of 255 belongs to no class.
    """
    if mask.size == 0:
        return [empty] * NUM_CLASSES
    # OpenCV transposes bytes several times faster than numpy copies a transposed view.
    flat = (cv2.transpose(mask) if order == "column" else np.ascontiguousarray(mask)).ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    # The end of the mask closes the last run: without it, a run on the last pixel would be lost.
    bounds = np.concatenate(([0], changes, [flat.size])).astype(np.int32)
    classes = flat[bounds[:-1]]
    by_class = np.argsort(classes, kind="stable")
    pairs = np.stack([bounds[:-1] + base, np.diff(bounds)], 1)[by_class]
    limits = np.searchsorted(classes[by_class], np.arange(NUM_CLASSES + 1))
    # The text of a whole list at once: '[1, 2, 3]' without its marks.
    texts = [str(pairs[a:b].ravel().tolist())[1:-1].replace(",", "") for a, b in pairwise(limits)]
    return [text or empty for text in texts]


def decode_mask(
    texts: list[str],
    size: tuple[int, int],
    order: str = "column",
    base: int = 1,
    empty: str = "",
) -> np.ndarray:
    """Decode 13 strings of encode_mask into a mask, uint8 [H,W]; 255 where no class claims a pixel.

    Raises UserError for text that is not pairs of numbers, a run outside the image, or two classes
    that claim one pixel.
    """
    flat = np.full(size[0] * size[1], VOID, np.uint8)
    for index, text in enumerate(texts):
        for start, length in _runs(text, empty):
            first = start - base
            if first < 0 or length < 1 or first + length > flat.size:
                raise UserError(f"run '{start} {length}' of class {index} lies outside the image")
            if (flat[first : first + length] != VOID).any():
                raise UserError(f"run '{start} {length}' of class {index} overlaps another class")
            flat[first : first + length] = index
    return flat.reshape(size[1], size[0]).T if order == "column" else flat.reshape(size)


def _runs(text: str, empty: str) -> list[tuple[int, int]]:
    if text == empty:
        return []
    try:
        numbers = [int(part) for part in text.split()]
        return list(zip(numbers[::2], numbers[1::2], strict=True))
    except ValueError:
        raise UserError(f"'{text[:40]}' is not a list of start and length pairs") from None
