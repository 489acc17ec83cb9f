"""Augmentation: every pixel stays with its depth and label, and each option does what it says."""

import cv2
import numpy as np
import pytest
from tiny_data import random_frame

from nyuseg.config.augment import Augment
from nyuseg.dataloading.augmentation import Augmentation

STILL = {"flip": 0, "shift": 0, "scale": 0, "rotate": 0}
STRONG = {"flip": 0.5, "shift": 0.2, "scale": 0.3, "rotate": 30}
SIZE = (96, 160)


def coordinate_frame() -> dict[str, np.ndarray]:
    """A frame whose pixels say where they come from.

    image: x, y and a constant 200; depth: 1 + y * width + x, unique; label: a class that follows
    from x and y without any symmetry. Nothing is missing or void.
    """
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    image = np.stack([x, y, np.full(SIZE, 200)], 2).astype(np.uint8)
    depth = (1 + y * SIZE[1] + x).astype(np.uint16)
    return {
        "image": image,
        "depth": depth,
        "label": ((x // 3 + 5 * (y // 4)) % 13).astype(np.uint8),
    }


def augmented(frame: dict[str, np.ndarray], seed: int, **options: float) -> dict[str, np.ndarray]:
    return Augmentation(Augment(**(STILL | options)), frame["label"].shape)(frame, seed)


def sources(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of an augmented coordinate_frame come from: x and y (of depth > 0)."""
    y, x = np.divmod(depth.astype(int) - 1, SIZE[1])
    return x, y


def fitted_motion(frame: dict[str, np.ndarray]) -> np.ndarray:
    """The affine map from a pixel (x, y) to its source, float [2,3], about the frame's centre."""
    y, x = np.nonzero(frame["depth"])
    centre = np.array([SIZE[1] - 1, SIZE[0] - 1]) / 2
    source = np.stack([part[y, x] for part in sources(frame["depth"])], 1) - centre
    places = np.column_stack([np.stack([x, y], 1) - centre, np.ones(len(x))])
    return np.linalg.lstsq(places, source, rcond=None)[0].T


def test_equal_seeds_give_equal_frames() -> None:
    augment = Augmentation(Augment(**STRONG), SIZE)
    frame = coordinate_frame()
    first = augment(frame, 7)
    other = augment(frame, 8)
    np.random.seed(3)  # noqa: NPY002 - a global state must not matter either.
    again = Augmentation(Augment(**STRONG), SIZE)(frame, 7)
    for kind in frame:
        np.testing.assert_array_equal(first[kind], augment(frame, 7)[kind])
        np.testing.assert_array_equal(first[kind], again[kind])
        assert (first[kind] != other[kind]).any()


def test_the_frame_itself_is_not_changed() -> None:
    frame = coordinate_frame()
    augmented(frame, 7, **STRONG)
    for kind, pixels in coordinate_frame().items():
        np.testing.assert_array_equal(frame[kind], pixels)


@pytest.mark.parametrize("seed", range(6))
def test_image_depth_and_label_stay_aligned(seed: int) -> None:
    original = coordinate_frame()
    moved = augmented(original, seed, **STRONG)
    for kind in original:
        assert moved[kind].dtype == original[kind].dtype
        assert moved[kind].shape == original[kind].shape
    inside = moved["depth"] > 0
    assert 0.2 < inside.mean() < 1
    x, y = sources(moved["depth"])
    # Depth and label take the same pixel; label 255 lies exactly where depth is missing.
    np.testing.assert_array_equal(moved["label"][inside], original["label"][y[inside], x[inside]])
    np.testing.assert_array_equal(moved["label"] == 255, ~inside)
    # The image blends up to half a pixel away from it; at the border it blends with black.
    inner = cv2.erode(inside.astype(np.uint8), np.ones((5, 5)), borderValue=0) > 0
    assert np.abs(moved["image"][..., 0].astype(int) - x)[inner].max() <= 1
    assert np.abs(moved["image"][..., 1].astype(int) - y)[inner].max() <= 1
    assert (moved["image"][..., 2][inner] == 200).all()
    outer = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5))) == 0
    assert (moved["image"][outer] == 0).all()


def test_nothing_asked_nothing_done() -> None:
    frame = random_frame(SIZE)
    for kind, pixels in augmented(frame, 3).items():
        np.testing.assert_array_equal(pixels, frame[kind])


def test_flip_alone_is_exact() -> None:
    frame = random_frame(SIZE)
    for kind, pixels in augmented(frame, 3, flip=1).items():
        np.testing.assert_array_equal(pixels, frame[kind][:, ::-1])


def test_flip_happens_about_half_the_time() -> None:
    frame = coordinate_frame()
    flipped = [augmented(frame, seed, flip=0.5)["depth"][0, 0] != 1 for seed in range(40)]
    assert 8 < sum(flipped) < 32


def test_a_mirrored_frame_is_shifted_as_any_other() -> None:
    """Left and right, whether it is mirrored or not: no random number decides both."""
    frame = coordinate_frame()
    augment = Augmentation(Augment(**(STILL | {"flip": 0.5, "shift": 0.1})), SIZE)
    found = np.stack([fitted_motion(augment(frame, seed)) for seed in range(80)])
    mirrored = found[:, 0, 0] < 0
    for part in (found[mirrored], found[~mirrored]):
        assert (part[:, 0, 2] > 1).sum() > 6 and (part[:, 0, 2] < -1).sum() > 6


def motions(**options: float) -> np.ndarray:
    """The motion of a dozen seeds, float [12,2,3]."""
    frame = coordinate_frame()
    augment = Augmentation(Augment(**(STILL | options)), SIZE)
    return np.stack([fitted_motion(augment(frame, seed)) for seed in range(12)])


def test_shift_alone_moves_along_both_axes() -> None:
    found = motions(shift=0.1)
    np.testing.assert_allclose(found[:, :, :2], np.tile(np.eye(2), (12, 1, 1)), atol=0.01)
    shift = found[:, :, 2] / [SIZE[1], SIZE[0]]
    assert np.abs(shift).max() <= 0.1 + 0.01
    assert (shift.min(0) < -0.03).all()
    assert (shift.max(0) > 0.03).all()


def test_scale_alone_keeps_centre_and_aspect_ratio() -> None:
    found = motions(scale=0.2)
    zoom = found[:, 0, 0]
    np.testing.assert_allclose(found[:, 1, 1], zoom, atol=0.01)
    np.testing.assert_allclose(found[:, [0, 1], [1, 0]], 0, atol=0.01)
    np.testing.assert_allclose(found[:, :, 2], 0, atol=1)
    assert (zoom >= 1 / 1.2 - 0.01).all()
    assert (zoom <= 1 / 0.8 + 0.01).all()
    assert zoom.min() < 0.95
    assert zoom.max() > 1.05


def test_rotation_alone_keeps_lengths() -> None:
    found = motions(rotate=20)
    np.testing.assert_allclose(np.linalg.det(found[:, :, :2]), 1, atol=0.02)
    np.testing.assert_allclose(found[:, :, 2], 0, atol=1)
    angle = np.degrees(np.arctan2(found[:, 1, 0], found[:, 0, 0]))
    assert np.abs(angle).max() <= 20.5
    assert angle.min() < -5
    assert angle.max() > 5


@pytest.mark.parametrize("seed", range(4))
def test_classes_and_depths_are_only_the_original_ones(seed: int) -> None:
    frame = random_frame(SIZE)
    frame["label"] = np.repeat([[0, 12, 255, 12]], SIZE[0], 0).repeat(SIZE[1] // 4, 1)
    frame["label"] = frame["label"].astype(np.uint8)
    frame["depth"] = np.where(frame["label"] == 12, 700, 65535).astype(np.uint16)
    moved = augmented(frame, seed, **STRONG)
    assert set(np.unique(moved["label"])) == {0, 12, 255}
    assert set(np.unique(moved["depth"])) == {0, 700, 65535}
    np.testing.assert_array_equal(moved["label"] == 12, moved["depth"] == 700)
