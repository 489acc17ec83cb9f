"""Near-duplicate images, by perceptual hashes: for data whose scenes nobody wrote down."""

from collections.abc import Sequence
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
from PIL import Image
from sklearn.cluster import DBSCAN

from nyuseg.data.frames import frame_path, read_image
from nyuseg.utils.prefetch import in_order

THREADS = 4  # That decode and hash images.
BITS = 64
# Measured on all pairs of 81 NYUv2 frames (12 rooms, 245 pairs of one room) and of 120 demo frames
# (30 rooms, 180 pairs): up to 8 of 64 bits no pair is found; at 10 one, of two rooms; at 16 four,
# all of two rooms; at 20 a precision of .07 and .04 and a recall of .01. Copies of those frames are
# within 8 bits for all of JPEG, noise and rotation by 2 degrees, for 71 % of a brightening that
# clips, for 92 % of a shift by 2 % of the width, 37 % by 4 %, none by 10 %. So 8 joins what is
# nearly the same picture and, there, never two rooms; a larger distance joins rooms first.
DISTANCE = 8


def duplicate_groups(root: Path, ids: Sequence[str], distance: int = DISTANCE) -> pd.Series:
    """The group of each training image, named after its first image; strings, in order of `ids`.

    Two images whose hashes differ in at most `distance` of 64 bits are of one group, and so is
    whatever such pairs link. Raises UserError for an image that cannot be read.
    """

    def hash_bits(image_id: str) -> np.ndarray:
        pixels = read_image(frame_path(root, "train", "image", image_id))
        return imagehash.phash(Image.fromarray(pixels)).hash.ravel()

    bits = np.stack(list(in_order(hash_bits, ids, THREADS, 2 * THREADS)))
    # With one sample a core, its clusters are the connected components of the near pairs.
    linked = DBSCAN(eps=(distance + 0.5) / BITS, min_samples=1, metric="hamming").fit_predict(bits)
    return pd.Series(ids).groupby(linked).transform("first")
