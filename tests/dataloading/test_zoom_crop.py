"""Zoom and crop: pixels stay with their depth and label, and each option does what it says."""

import cv2
import numpy as np
import pytest
from tiny_data import random_frame

from nyuseg.config.augment import Augment
from nyuseg.dataloading.augmentation import Augmentation

STILL = {"flip": 0, "shift": 0, "scale": 0, "rotate": 0}
NATIVE = (96, 160)
Frame = dict[str, np.ndarray]


def coordinate_frame(size: tuple[int, int] = NATIVE) -> Frame:
    """Image: x, y and a constant 200; depth: 1 + y * width + x; label: follows from both."""
    y, x = np.mgrid[: size[0], : size[1]]
    image = np.stack([x, y, np.full(size, 200)], 2).astype(np.uint8)
    label = ((x // 3 + 5 * (y // 4)) % 13).astype(np.uint8)
    return {"image": image, "depth": (1 + y * size[1] + x).astype(np.uint16), "label": label}


def augmentation(**options: object) -> Augmentation:
    return Augmentation(Augment.model_validate(STILL | options), NATIVE)


def sources(frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which pixels of an augmented coordinate_frame show something, and the x and y they show."""
    inside = frame["depth"] > 0
    y, x = np.divmod(frame["depth"][inside].astype(int) - 1, NATIVE[1])
    return inside, x, y


def motion(frame: Frame) -> np.ndarray:
    """The affine map from a pixel (x, y) to its source, float [2,3]."""
    inside, *source = sources(frame)
    y, x = np.nonzero(inside)
    places = np.column_stack([x, y, np.ones(len(x))])
    return np.linalg.lstsq(places, np.stack(source, 1), rcond=None)[0].T


@pytest.mark.parametrize("seed", range(8))
def test_image_depth_and_label_stay_aligned(seed: int) -> None:
    original = coordinate_frame()
    strong = {"flip": 0.5, "shift": 0.2, "scale": 0.3, "rotate": 30, "zoom": [0.5, 2]}
    moved = augmentation(crop=[80, 112], **strong)(original, seed)
    assert 0.5 * 0.7 < moved.pop("zoom") < 2 * 1.3
    assert {kind: (p.shape, p.dtype) for kind, p in moved.items()} == {
        kind: ((80, 112, *p.shape[2:]), p.dtype) for kind, p in original.items()
    }
    inside, x, y = sources(moved)
    np.testing.assert_array_equal(moved["label"][inside], original["label"][y, x])
    np.testing.assert_array_equal(moved["label"] == 255, ~inside)
    # A blended colour is that of half a pixel away; where it shrinks, of a native pixel or two.
    inner = cv2.erode(inside.astype(np.uint8), np.ones((5, 5)), borderValue=0) > 0
    for channel, source in enumerate((x, y)):
        found = np.zeros(inside.shape, int)
        found[inside] = moved["image"][..., channel][inside].astype(int) - source
        assert np.abs(found[inner]).max() <= 2
        assert abs(found[inner].mean()) <= 0.5  # Half a pixel where two are averaged.
    assert (moved["image"][..., 2][inner] == 200).all()
    assert (moved["image"][cv2.dilate(inside.astype(np.uint8), np.ones((5, 5))) == 0] == 0).all()


def test_a_crop_alone_is_a_sharp_cutting_from_anywhere_in_the_frame() -> None:
    original = random_frame(NATIVE)
    coordinates = coordinate_frame()
    augment = augmentation(crop=[32, 64])
    corners = []
    for seed in range(60):
        _, x, y = sources(augment(coordinates, seed))
        place = np.s_[y[0] : y[0] + 32, x[0] : x[0] + 64]
        for kind, pixels in augment(original, seed).items():
            if kind == "zoom":
                assert pixels == 1
                continue
            np.testing.assert_array_equal(pixels, original[kind][place])
        corners.append((y[0], x[0]))
    assert np.min(corners, 0).max() < 8
    assert (np.max(corners, 0) > [56, 88]).all()


def test_a_working_size_alone_is_the_whole_frame_at_that_size() -> None:
    for size in ((48, 80), (192, 320), (64, 80), (32, 32)):
        frame = augmentation(working_size=size)(coordinate_frame(), 3)
        scale = min(size[0] / NATIVE[0], size[1] / NATIVE[1])
        np.testing.assert_allclose(motion(frame)[:, :2] * scale, np.eye(2), atol=0.02)
        inside, x, y = sources(frame)
        assert inside.shape == size
        assert inside.sum() == round(NATIVE[0] * scale) * round(NATIVE[1] * scale)
        assert np.ptp(x) > 0.95 * NATIVE[1] - 2 / scale
        assert np.ptp(y) > 0.95 * NATIVE[0] - 2 / scale


def test_zoom_is_uniform_in_its_logarithm_and_keeps_the_shape() -> None:
    augment = augmentation(zoom=[0.5, 2])
    found = np.stack([motion(augment(coordinate_frame(), seed)) for seed in range(200)])
    zoom = 1 / found[:, 0, 0]
    np.testing.assert_allclose(found[:, 1, 1], found[:, 0, 0], atol=0.02)
    np.testing.assert_allclose(found[:, [0, 1], [1, 0]], 0, atol=0.02)
    assert 0.49 < zoom.min() < 0.55
    assert 1.85 < zoom.max() < 2.04
    assert 80 < (zoom < 1).sum() < 120


def test_a_frame_smaller_than_the_crop_lies_anywhere_in_it() -> None:
    augment = augmentation(zoom=[0.5, 0.5])
    corners = []
    for seed in range(60):
        inside, *_ = sources(augment(coordinate_frame(), seed))
        assert inside.sum() == 48 * 80
        corners.append(np.argwhere(inside).min(0))
    assert np.min(corners, 0).max() < 6
    assert (np.max(corners, 0) > [42, 72]).all()


def test_flip_shift_scale_and_rotation_still_act() -> None:
    def motions(**options: float) -> np.ndarray:
        augment = augmentation(working_size=NATIVE, **options)
        return np.stack([motion(augment(coordinate_frame(), seed)) for seed in range(40)])

    centre = np.array([NATIVE[1] - 1, NATIVE[0] - 1]) / 2
    np.testing.assert_allclose(motions(flip=1), [[[-1, 0, 159], [0, 1, 0]]] * 40, atol=0.001)
    moves = motions(shift=0.2)[:, :, 2] / NATIVE[::-1]
    assert (
        np.abs(moves).max() <= 0.21 and (moves.min(0) < -0.1).all() and (moves.max(0) > 0.1).all()
    )
    sizes = 1 / motions(scale=0.3)[:, 0, 0]
    assert 0.69 < sizes.min() < 0.8 and 1.2 < sizes.max() < 1.31
    turns = motions(rotate=20)
    angles = np.degrees(np.arctan2(turns[:, 1, 0], turns[:, 0, 0]))
    assert -20.5 < angles.min() < -8 and 8 < angles.max() < 20.5
    np.testing.assert_allclose(np.linalg.det(turns[:, :, :2]), 1, atol=0.02)
    np.testing.assert_allclose(turns[:, :, :2] @ centre + turns[:, :, 2] - centre, 0, atol=1)


@pytest.mark.parametrize("zoom", [0.25, 1 / 3, 0.5])
def test_what_shrinks_is_averaged_not_sampled(zoom: float) -> None:
    frame = coordinate_frame()
    frame["image"][:] = 40
    frame["image"][:, ::2] = 200  # Stripes that no smaller picture can show.
    moved = augmentation(zoom=[zoom, zoom])(frame, 1)
    inner = cv2.erode((moved["depth"] > 0).astype(np.uint8), np.ones((3, 3)), borderValue=0) > 0
    assert inner.sum() > 100
    assert np.abs(moved["image"][inner].astype(int) - 120).max() <= 30


def test_depth_is_as_measured_unless_it_is_to_follow_the_zoom() -> None:
    frame = coordinate_frame()
    frame["depth"][:] = np.repeat([0, 1, 4000, 65535], 40)
    for zoom, divided in ((2, {0, 1, 2000, 32768}), (0.5, {0, 2, 8000, 65535})):
        for options, expected in (
            ({}, {0, 1, 4000, 65535}),
            ({"zoom_depth": True}, divided),
        ):
            seen: set[int] = set()
            for seed in range(12):
                moved = augmentation(zoom=[zoom, zoom], **options)(frame, seed)
                assert moved["depth"].dtype == np.uint16
                seen |= set(moved["depth"].ravel().tolist())
            assert seen == expected


def test_depth_follows_a_working_size_that_is_not_the_predicted_one() -> None:
    frame = coordinate_frame()
    frame["depth"][:] = 3000
    working = [2 * n for n in NATIVE]
    seen = augmentation(working_size=working, crop=NATIVE, zoom_depth=True)(frame, 1)["depth"]
    assert set(seen.ravel().tolist()) == {1500}


def test_a_crop_without_a_label_is_avoided() -> None:
    frame = coordinate_frame()
    frame["label"][:] = 255
    frame["label"][:, 120:] = 3
    augment = augmentation(crop=[96, 40])
    assert all((augment(frame, seed)["label"] == 3).any() for seed in range(40))
    frame["label"][:] = 255  # Where there is none at all, there is still an answer.
    assert (augment(frame, 0)["label"] == 255).all()


def rare_frame(place: tuple[int, int]) -> Frame:
    """A frame of classes 2 and 5, and of class 9 at one pixel."""
    frame = coordinate_frame()
    frame["label"][:] = np.where(np.arange(160) < 120, 2, 5)
    frame["label"][place] = 9
    return frame


def rare(weights: dict[int, float], **options: object) -> Augmentation:
    settings = Augment.model_validate(STILL | {"crop": [32, 48]} | options)
    return Augmentation(settings, NATIVE, np.array([weights.get(n, 0) for n in range(13)]))


@pytest.mark.parametrize("place", [(0, 0), (95, 3), (41, 159)])
def test_a_rare_crop_holds_a_pixel_of_the_rare_class_anywhere(place: tuple[int, int]) -> None:
    frame = rare_frame(place)
    options = {"flip": 0.5, "zoom": [1, 2], "rotate": 5, "shift": 0.1}
    augment = rare({9: 1}, rare_crop=1, **options)
    found = [np.argwhere(augment(frame, seed)["label"] == 9) for seed in range(60)]
    assert all(len(one) for one in found)
    if place == (41, 159):  # In the middle of an edge: its height is free.
        assert np.ptp([one[0][0] for one in found]) > 20
    usual = rare({9: 1}, rare_crop=0.3, **options)
    assert 6 <= sum((usual(frame, seed)["label"] == 9).any() for seed in range(60)) <= 40


def test_classes_of_a_frame_are_drawn_by_their_weights() -> None:
    frame = rare_frame((50, 50))
    # The heaviest class is not there; 5, at the right edge, is drawn three times as often as 9.
    augment = rare({0: 1000, 5: 3, 9: 1}, rare_crop=1)
    found = [augment(frame, seed)["label"] for seed in range(100)]
    assert all(((one == 5) | (one == 9)).any() for one in found)
    assert 55 < sum((one == 5).any() for one in found) < 92
    frame["label"][:] = 255
    assert (augment(frame, 0)["label"] == 255).all()


def test_equal_seeds_give_equal_frames_and_the_frame_stays() -> None:
    frame, options = random_frame(NATIVE), {"zoom": [0.5, 2], "rotate": 5, "crop": [64, 64]}
    kept = {kind: pixels.copy() for kind, pixels in frame.items()}
    for pixels in frame.values():
        pixels.flags.writeable = False  # As those of a memory-mapped cache.
    augment = augmentation(**options)
    first, other = augment(frame, 7), augment(frame, 8)
    again = augmentation(**options)(frame, 7)
    for kind in frame:
        np.testing.assert_array_equal(first[kind], again[kind])
        np.testing.assert_array_equal(first[kind], augment(frame, 7)[kind])
        np.testing.assert_array_equal(frame[kind], kept[kind])
        assert (first[kind] != other[kind]).any()


def test_a_frame_without_depth_stays_without() -> None:
    frame = coordinate_frame()
    del frame["depth"]
    assert set(augmentation(zoom=[0.5, 2])(frame, 0)) == {"image", "label", "zoom"}
