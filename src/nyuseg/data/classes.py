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

# RGB colour of each class, for pictures only. Any two, and black, differ by .1 or more in OKLab,
# also to those who do not tell red from green or blue from yellow.
PALETTE = np.array(
    [
        (213, 115, 132),
        (139, 68, 34),
        (186, 223, 244),
        (177, 161, 30),
        (145, 119, 52),
        (66, 104, 112),
        (239, 244, 59),
        (120, 54, 177),
        (44, 129, 195),
        (79, 224, 121),
        (40, 60, 109),
        (165, 185, 195),
        (92, 165, 240),
    ],
    dtype=np.uint8,
)


def colorize(mask: np.ndarray) -> np.ndarray:
    """Turn a mask, uint8 [H,W] of 0..12 or 255, into RGB, uint8 [H,W,3]; void is black."""
    table = np.zeros((256, 3), np.uint8)
    table[:NUM_CLASSES] = PALETTE
    return table[mask]
