"""Objects of one training frame in another, where they are nearer than what is there."""

import cv2
import numpy as np

from nyuseg.data.frames import Frame
from nyuseg.dataloading.letterbox import letterbox
from nyuseg.dataloading.rare import rare_place


def paste(frame: Frame, other: Frame, weights: np.ndarray, random: np.random.Generator) -> Frame:
    """A frame with an object of another one: all that is known of its pixels, at their place in the
    picture and their distance, mirrored half of the time.

    Frames: image uint8 [H,W,3], depth uint16 [H,W], label uint8 [H,W], perhaps kinds of
    values.GEOMETRY, which stay those of the other room; another size is letterboxed.
    The object is what hangs together of one class, drawn by the weights, see rare_place. What is
    nearer in the frame hides it; a missing depth is taken for farther in the frame, and is never
    pasted.
    """
    if other["label"].shape != frame["label"].shape:
        other = letterbox(other, frame["label"].shape)
    if random.random() < 0.5:
        other = {kind: np.ascontiguousarray(pixels[:, ::-1]) for kind, pixels in other.items()}
    place = rare_place(other["label"], weights, random)
    if place is None:
        return frame
    there, new = frame["depth"], other["depth"]
    shown = _object(other["label"], place) & (new > 0) & ((there == 0) | (new < there))
    pasted = {kind: pixels.copy() for kind, pixels in frame.items()}
    for kind, pixels in pasted.items():
        pixels[shown] = other[kind][shown]
    return pasted


def _object(label: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    """Which pixels have the class of the one at (y, x) and hang together with it: bool [H,W]."""
    found = np.zeros((label.shape[0] + 2, label.shape[1] + 2), np.uint8)
    cv2.floodFill(label.copy(), found, place[::-1], 0, flags=4 | cv2.FLOODFILL_MASK_ONLY)
    return found[1:-1, 1:-1] > 0
