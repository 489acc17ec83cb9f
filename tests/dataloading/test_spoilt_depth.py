"""The network sees a depth with holes and noise, or none; its head is to predict the measured."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_data import random_frame

from nyuseg.config.augment import Augment
from nyuseg.config.loading import parse_config
from nyuseg.data.depth import inverse_depth, linear_depth
from nyuseg.data.frames import FrameFolder
from nyuseg.dataloading.augmentation import Augmentation
from nyuseg.dataloading.dataset import TrainingSet
from nyuseg.dataloading.inputs import training_inputs
from nyuseg.dataloading.loader import collate
from nyuseg.models.normalisation import resolve_normalisation

STILL = {"flip": 0, "shift": 0, "scale": 0, "rotate": 0}
SIZE = (64, 96)
SEEDS = range(80)
Frame = dict[str, np.ndarray]


def seen(frame: Frame, seed: int, **options: object) -> np.ndarray:
    """The depth that the network sees of a frame that stays in its place; all else is the same."""
    moved = Augmentation(Augment.model_validate(STILL | options), SIZE)(frame, seed)
    assert set(moved) == {*frame, "depth_seen"}
    for kind, pixels in frame.items():
        np.testing.assert_array_equal(moved[kind], pixels)
    assert (moved["depth_seen"].shape, moved["depth_seen"].dtype) == (SIZE, np.uint16)
    return moved["depth_seen"]


def test_holes_are_missing_rectangles_and_the_rest_is_as_it_was() -> None:
    frame = random_frame(SIZE)
    frame["depth"][:] = np.arange(1, 1 + SIZE[0] * SIZE[1]).reshape(SIZE)
    shares = []
    for seed in SEEDS:
        depth = seen(frame, seed, depth_holes=0.5)
        hole = depth == 0
        np.testing.assert_array_equal(depth[~hole], frame["depth"][~hole])
        shares.append(hole.mean())
    assert 25 <= np.count_nonzero(shares) <= 55
    assert 0.08 < max(shares) < 0.5
    assert min(share for share in shares if share) < 0.04


def test_noise_grows_with_the_square_of_the_distance_and_spares_what_is_missing() -> None:
    frame = random_frame(SIZE)
    distances = [0, 1000, 5000, 65535]
    frame["depth"][:] = np.repeat(distances, 24)
    found = np.stack([seen(frame, seed, depth_noise=2).astype(float) for seed in SEEDS])
    missing, near, far, farthest = np.split(found, 4, axis=2)
    assert (missing == 0).all()
    assert found[..., 24:].min() > 0
    assert abs(near.mean() - 1000) < 0.1 and abs(far.mean() - 5000) < 2
    spread = far.std((1, 2))
    assert 50 < spread.max() < 2.1 * 36 and spread.min() < 10  # Up to twice a Kinect's 36 mm.
    strong = spread > 30
    ratio = spread[strong] / near.std((1, 2))[strong]
    assert ((ratio > 20) & (ratio < 30)).all()
    assert farthest.max() == 65535  # Nothing wraps around.


def test_dropout_leaves_no_depth_at_all_in_its_part_of_the_frames() -> None:
    frame = random_frame(SIZE)
    found = [seen(frame, seed, depth_drop=0.3) for seed in SEEDS]
    dropped = [not depth.any() for depth in found]
    assert 12 <= sum(dropped) <= 36
    for depth, gone in zip(found, dropped, strict=True):
        if not gone:
            np.testing.assert_array_equal(depth, frame["depth"])


@pytest.mark.parametrize("geometry", [{}, {"zoom": [0.5, 2], "crop": [32, 64]}])
def test_equal_seeds_see_the_same_and_the_geometry_is_that_without(geometry: dict) -> None:
    frame = random_frame(SIZE)
    plain = Augmentation(Augment.model_validate(geometry), SIZE)
    options = geometry | {"depth_holes": 0.5, "depth_noise": 1, "depth_drop": 0.2, "colour": 1}
    spoilt, again = (Augmentation(Augment.model_validate(options), SIZE) for _ in range(2))
    other = spoilt(frame, 99)["depth_seen"]
    for seed in range(12):
        one, two, three = plain(frame, seed), spoilt(frame, seed), again(frame, seed)
        np.testing.assert_array_equal(one["depth"], two["depth"])
        np.testing.assert_array_equal(one["label"], two["label"])
        np.testing.assert_array_equal(two["depth_seen"], three["depth_seen"])
        assert (two["depth_seen"] != other).any()
        assert (two["depth_seen"][two["depth"] == 0] == 0).all()


def test_the_network_sees_it_and_the_depth_head_learns_what_was_measured(
    tiny_folder: Callable[..., list[str]], tmp_path: Path
) -> None:
    ids = tiny_folder(tmp_path, [SIZE, (70, 50)])
    channels = ["rgb", "inverse_depth", "linear_depth"]
    given = {
        "name": "tiny",
        "data": {"size": SIZE, "channels": channels},
        "augment": {"depth_holes": 1, "depth_noise": 2},
    }
    config = resolve_normalisation(parse_config(given, "test"))
    samples = TrainingSet(FrameFolder(tmp_path, "train"), ids, config, 0)
    sample = samples[0, 1]
    arrays = [values for values in sample.values() if isinstance(values, np.ndarray)]
    assert samples.sample_bytes == sum(values.nbytes for values in arrays)
    batch = training_inputs(collate([sample]), samples.data, torch.device("cpu"))
    image = batch["image"][0].numpy()
    for plane, code in ((3, inverse_depth), (4, linear_depth)):
        np.testing.assert_allclose(image[plane], code(sample["depth_seen"]), atol=1e-6)
    np.testing.assert_allclose(batch["depth"][0, 0], linear_depth(sample["depth"]), atol=1e-6)
    np.testing.assert_array_equal(batch["depth_valid"][0, 0], sample["depth"] > 0)
    assert (sample["depth_seen"] != sample["depth"]).mean() > 0.2
