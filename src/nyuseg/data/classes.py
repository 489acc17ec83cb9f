"""The class table: names, colours and the void id. The only place where they stand."""

import numpy as np

CLASS_NAMES = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)
NUM_CLASSES = len(CLASS_NAMES)
VOID = 255

# RGB colour of each class, for pictures only.
PALETTE = np.array(
    [
        (214, 84, 110),
        (148, 82, 36),
        (208, 214, 230),
        (246, 158, 52),
        (134, 106, 84),
        (86, 130, 86),
        (232, 216, 66),
        (150, 84, 190),
        (44, 160, 170),
        (110, 190, 80),
        (30, 40, 60),
        (150, 160, 178),
        (92, 170, 240),
    ],
    dtype=np.uint8,
)


def colorize(mask: np.ndarray) -> np.ndarray:
    """Turn a mask, uint8 [H,W] of 0..12 or 255, into RGB, uint8 [H,W,3]; void is black."""
    table = np.zeros((256, 3), np.uint8)
    table[:NUM_CLASSES] = PALETTE
    return table[mask]
