"""Colour, blur and noise change the image as they say, and nothing else."""

import cv2
import numpy as np
import pytest
from tiny_data import random_frame

from nyuseg.config.augment import Augment
from nyuseg.dataloading.augmentation import Augmentation

STILL = {"flip": 0, "shift": 0, "scale": 0, "rotate": 0}
SIZE = (64, 96)
SEEDS = range(60)
Frame = dict[str, np.ndarray]


def changed(frame: Frame, seed: int, **options: object) -> np.ndarray:
    """The image of an augmented frame that stays in its place; depth and label must be the same."""
    moved = Augmentation(Augment.model_validate(STILL | options), SIZE)(frame, seed)
    for kind in ("depth", "label"):
        np.testing.assert_array_equal(moved[kind], frame[kind])
    assert (moved["image"].shape, moved["image"].dtype) == ((*SIZE, 3), np.uint8)
    return moved["image"]


def frame_of(colour: tuple[int, int, int]) -> Frame:
    return random_frame(SIZE) | {"image": np.full((*SIZE, 3), colour, np.uint8)}


def test_four_of_five_images_change_their_colours_by_the_strength() -> None:
    def shifts(strength: float) -> np.ndarray:
        frame = frame_of((120, 80, 60))
        found = [changed(frame, seed, colour=strength)[0, 0].astype(int) for seed in SEEDS]
        return np.array(found) - frame["image"][0, 0]

    strong, weak = shifts(1), shifts(0.2)
    assert 38 <= (strong != 0).any(1).sum() <= 57
    assert 60 < np.abs(strong).max() < 160
    assert 5 < np.abs(weak).max() < np.abs(strong).max() / 3
    # Brighter and darker; and another tone, not only a brighter one.
    assert strong.sum(1).min() < -50 and strong.sum(1).max() > 50
    assert np.ptp(strong, 1).max() > 20
    assert (shifts(0) == 0).all()


def test_hue_and_contrast_act_too() -> None:
    frame = frame_of((200, 40, 40))
    frame["image"][:, 48:] //= 2
    found = [changed(frame, seed, colour=1) for seed in SEEDS]
    hues = np.array([cv2.cvtColor(one, cv2.COLOR_RGB2HSV)[0, 0, 0] for one in found]).astype(int)
    turned = (hues + 90) % 180 - 90  # Of 180 steps to the circle, around red.
    assert -30 <= turned.min() < -8 and 8 < turned.max() <= 30  # 18, and what clipping adds.
    ratios = [one[0, 0].mean() / one[0, -1].mean() for one in found]
    assert min(ratios) < 1.8 and max(ratios) > 2.2


@pytest.mark.parametrize("options", [{"blur": 0.5}, {"noise": 0.5}])
def test_blur_and_noise_come_with_their_probability(options: dict[str, float]) -> None:
    frame = random_frame(SIZE)
    hit = [(changed(frame, seed, **options) != frame["image"]).any() for seed in SEEDS]
    assert 15 <= sum(hit) <= 45


def test_blur_smooths_and_noise_roughens_around_the_same_mean() -> None:
    stripes = frame_of((100, 100, 100))
    stripes["image"][:, ::2] = 140
    spread = [changed(stripes, seed, blur=1).std() for seed in SEEDS]
    assert min(spread) < 4 and max(spread) <= 20
    grey = frame_of((120, 120, 120))
    noise = np.stack([changed(grey, seed, noise=1) for seed in SEEDS]).astype(float)
    assert abs(noise.mean() - 120) < 1
    deviations = noise.std((1, 2, 3))
    assert 2 < deviations.min() < 5 and 10 < deviations.max() < 14
    np.testing.assert_array_equal(noise[..., 0], noise[..., 2])


def test_outside_of_the_frame_stays_black() -> None:
    frame = random_frame((64, 48))  # Fills the left half of the input.
    augment = Augmentation(
        Augment.model_validate(STILL | {"colour": 1, "blur": 1, "noise": 1}), SIZE
    )
    for seed in range(12):
        image = augment(frame, seed)["image"]
        assert (image[:, 48:] == 0).all()
        assert (image[:, :48] > 0).any()


@pytest.mark.parametrize("geometry", [{}, {"zoom": [0.5, 2], "crop": [32, 48]}])
def test_geometry_is_the_same_with_and_without_and_seeds_decide(geometry: dict) -> None:
    frame = random_frame(SIZE)
    plain = Augmentation(Augment.model_validate(geometry), SIZE)
    options = geometry | {"colour": 0.6, "blur": 0.5, "noise": 0.5}
    coloured = Augmentation(Augment.model_validate(options), SIZE)
    again = Augmentation(Augment.model_validate(options), SIZE)
    other = coloured(frame, 99)["image"]
    flips = []
    for seed in range(20):
        one, two = plain(frame, seed), coloured(frame, seed)
        for kind in ("depth", "label"):
            np.testing.assert_array_equal(one[kind], two[kind])
        cv2.setRNGSeed(seed)  # A global state must not matter.
        np.testing.assert_array_equal(two["image"], again(frame, seed)["image"])
        assert (two["image"] != other).any()
        flips.append((one["image"] != two["image"]).any())
    assert sum(flips) > 12


def test_blur_and_noise_do_not_come_together() -> None:
    """Each happens alone in a fair part of the frames: no random number decides both."""
    frame = random_frame(SIZE)
    one, other, both = (
        [changed(frame, seed, **options) for seed in SEEDS]
        for options in ({"blur": 0.5}, {"noise": 0.5}, {"blur": 0.5, "noise": 0.5})
    )
    blurred, noisy, either = (
        np.array([(pixels != frame["image"]).any() for pixels in found])
        for found in (one, other, both)
    )
    assert either.sum() > max(blurred.sum(), noisy.sum()) + 5
    assert (either & ~blurred).sum() > 5
