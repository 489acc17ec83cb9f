"""Copy-paste: an object of a rare class, where it is nearer, with its depth and label."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from tiny_data import random_frame

from nyuseg.config.augment import Augment
from nyuseg.config.loading import parse_config
from nyuseg.data.frames import FrameFolder, frame_path, write_png
from nyuseg.dataloading.copy_paste import paste
from nyuseg.dataloading.dataset import TrainingSet
from nyuseg.dataloading.rare import inverse_shares

SIZE = (40, 60)
Frame = dict[str, np.ndarray]


def weights_of(**weights: float) -> np.ndarray:
    return np.array([weights.get(f"c{number}", 0) for number in range(13)])


def room(depth: int, label: int, colour: int) -> Frame:
    """A frame of one wall."""
    return {
        "image": np.full((*SIZE, 3), colour, np.uint8),
        "depth": np.full(SIZE, depth, np.uint16),
        "label": np.full(SIZE, label, np.uint8),
    }


def with_objects() -> Frame:
    """A room at 4 m with two things of class 7, one of them at 1 m, the other at 2 m."""
    frame = room(4000, 12, 50)
    for place, depth in ((np.s_[5:15, 4:14], 1000), (np.s_[20:35, 8:20], 2000)):
        frame["label"][place], frame["depth"][place], frame["image"][place] = 7, depth, depth // 10
    frame["depth"][5, 4:14] = 0
    return frame


def pasted(frame: Frame, other: Frame, seed: int, weights: np.ndarray) -> Frame:
    return paste(frame, other, weights, np.random.default_rng(seed))


def test_one_whole_object_is_pasted_where_it_was_or_mirrored() -> None:
    background, other = room(3000, 4, 9), with_objects()
    boxes = set()
    for seed in range(40):
        frame = pasted(background, other, seed, weights_of(c7=1))
        new = frame["label"] == 7
        assert (frame["label"][~new] == 4).all()
        y, x = np.nonzero(new)
        boxes.add((int(y.min()), int(y.max()), int(x.min()), int(x.max()), int(new.sum())))
        depth = 1000 if y.min() < 20 else 2000
        for kind, value, before in (("depth", depth, 3000), ("image", depth // 10 % 256, 9)):
            assert (frame[kind][new] == value).all()
            assert (frame[kind][~new] == before).all()
    # Without the first row of the near one, whose depth is missing.
    assert boxes == {
        (6, 14, 4, 13, 90),
        (6, 14, 46, 55, 90),
        (20, 34, 8, 19, 180),
        (20, 34, 40, 51, 180),
    }
    assert (background["label"] == 4).all()


def test_what_is_nearer_hides_it_and_what_has_no_depth_does_not() -> None:
    background = room(1500, 4, 9)
    background["depth"][:, ::2] = 0
    for seed in range(20):
        frame = pasted(background, with_objects(), seed, weights_of(c7=1))
        new = frame["label"] == 7
        assert new.any()
        if (frame["depth"][new] == 2000).any():
            assert not new[:, 1::2].any()
        else:
            assert new.sum() == 90
    near = room(500, 4, 9)
    for kind, pixels in pasted(near, with_objects(), 0, weights_of(c7=1)).items():
        np.testing.assert_array_equal(pixels, near[kind])


def test_a_frame_without_a_class_that_has_a_weight_gives_nothing() -> None:
    background = room(3000, 4, 9)
    frame = pasted(background, with_objects(), 0, weights_of(c3=1))
    for kind, pixels in frame.items():
        np.testing.assert_array_equal(pixels, background[kind])


def test_a_frame_of_another_size_is_fitted() -> None:
    other = {kind: pixels.repeat(2, 0).repeat(2, 1) for kind, pixels in with_objects().items()}
    frames = [pasted(room(3000, 4, 9), other, seed, weights_of(c7=1)) for seed in range(12)]
    assert {int((frame["label"] == 7).sum()) for frame in frames} == {90, 180}


def test_class_weights_are_the_inverse_shares() -> None:
    label = np.full((40, 80), 255, np.uint8)
    label[:, :40], label[:, 40:60] = 3, 12
    other = np.full((40, 40), 12, np.uint8)
    expected = np.zeros(13)
    expected[[3, 12]] = 250 / 100, 250 / 150
    np.testing.assert_allclose(inverse_shares(iter([label, other])), expected)


def test_only_other_training_frames_of_the_fold_give_objects_as_often_as_asked(
    tiny_folder: Callable[..., list[str]], tmp_path: Path
) -> None:
    ids = tiny_folder(tmp_path, [SIZE] * 4)
    for number, image_id in enumerate(ids):
        frame = room(4000 - 100 * number, number, 30)
        for kind, pixels in frame.items():
            write_png(frame_path(tmp_path, "train", kind, image_id), pixels)
    still = {"flip": 0, "shift": 0, "scale": 0, "rotate": 0}
    given = {"name": "x", "data": {"size": [64, 96]}, "augment": {**still, "copy_paste": 0.5}}
    config = parse_config(given, "test")
    source = FrameFolder(tmp_path, "train")
    samples, again = (TrainingSet(source, ids[:3], config, 0) for _ in range(2))
    seen: dict[int, list[int]] = {index: [] for index in range(3)}
    for index, classes in seen.items():
        for epoch in range(30):
            label = samples[epoch, index]["label"]
            np.testing.assert_array_equal(label, again[epoch, index]["label"])
            classes.append(int(label[label != 255].max()))
    # A frame's wall is nearer than those before it: it covers them. The last id is held out.
    assert set(seen[0]) == {0, 1, 2}
    assert set(seen[1]) == {1, 2}
    assert set(seen[2]) == {2}
    assert 8 <= sum(one > 0 for one in seen[0]) <= 22
    plain = config.model_copy(update={"augment": Augment.model_validate(still)})
    for epoch in range(5):  # The geometry is drawn apart.
        moved = TrainingSet(source, ids[:3], plain, 0)[epoch, 0]["label"]
        np.testing.assert_array_equal(samples[epoch, 0]["label"] == 255, moved == 255)


def test_the_frames_themselves_stay() -> None:
    frame, other = random_frame(SIZE, 1), random_frame(SIZE, 2)
    for one in (frame, other):
        for pixels in one.values():
            pixels.flags.writeable = False  # As those of a memory-mapped cache.
    result = pasted(frame, other, 3, np.ones(13))
    for kind, pixels in result.items():
        assert pixels.dtype == frame[kind].dtype and pixels.shape == frame[kind].shape
