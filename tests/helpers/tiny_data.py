"""Asymmetric frames, and a tiny data folder of them in the competition's layout."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nyuseg.data.frames import png_path, write_png

Size = tuple[int, int]


def write_tiny_folder(
    root: Path,
    sizes: Sequence[Size],
    scenes: Sequence[str] | None = None,
    test: Sequence[Size] = (),
) -> list[str]:
    """Write one training frame a size (and one test frame a size of `test`); returns train ids.

    Ids: train 900001..., test 990001..., so that they are none of NYUv2's. Pixels are random, so
    no flip or transposition maps a frame to itself; depth and label hold some missing and void.
    `scenes` gives the scene of each training frame; without it there is no scenes.csv.
    """
    rng = np.random.default_rng(7)
    for split, start, shapes in (("train", 900001, sizes), ("test", 990001, test)):
        for number, size in enumerate(shapes, start):
            frame = {
                "image": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
                "depth": rng.integers(400, 12000, size, dtype=np.uint16),
                "label": rng.integers(0, 13, size, dtype=np.uint8),
            }
            frame["depth"][rng.random(size) < 0.1] = 0
            frame["label"][rng.random(size) < 0.1] = 255
            for kind in ("image", "depth", "label") if split == "train" else ("image", "depth"):
                write_png(png_path(root, split, kind, f"{number:06d}"), frame[kind])
    ids = [f"{900001 + i:06d}" for i in range(len(sizes))]
    if scenes is not None:
        rows = [f"{i},{scene},kind_{scene}\n" for i, scene in zip(ids, scenes, strict=True)]
        (root / "scenes.csv").write_text("image_id,scene,scene_type\n" + "".join(rows))
    return ids


def random_frame(size: Size, seed: int = 0) -> dict[str, np.ndarray]:
    """Random image, depth (with missing pixels) and label (with void)."""
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "depth": rng.integers(0, 65536, size, dtype=np.uint16),
        "label": rng.choice([*range(13), 255], size).astype(np.uint8),
    }
