"""Which classes are rare, and where a frame shows them."""

from collections.abc import Iterable

import cv2
import numpy as np

from nyuseg.data.classes import NUM_CLASSES, VOID


def inverse_shares(labels: Iterable[np.ndarray]) -> np.ndarray:
    """The inverse of each class's share of the pixels of many labels, uint8 [H,W]: float [13], 0
    for a class that never occurs. Every fourth row and column is counted."""
    counts = np.zeros(NUM_CLASSES)
    for label in labels:
        counts += np.bincount(label[::4, ::4].ravel(), minlength=VOID + 1)[:NUM_CLASSES]
    return np.divide(counts.sum(), counts, out=np.zeros(NUM_CLASSES), where=counts > 0)


def rare_place(
    label: np.ndarray, weights: np.ndarray, random: np.random.Generator
) -> tuple[int, int] | None:
    """A pixel (y, x) of a label, uint8 [H,W]: first one of its classes is drawn by the weights,
    float [13], then one of that class's pixels. None where no class has a weight."""
    there = cv2.calcHist([label], [0], None, [NUM_CLASSES], [0, NUM_CLASSES]).ravel() > 0
    weights = weights * there
    if not weights.any():
        return None
    number = random.choice(NUM_CLASSES, p=weights / weights.sum())
    y, x = divmod(int(random.choice(np.flatnonzero(label == number))), label.shape[1])
    return y, x
