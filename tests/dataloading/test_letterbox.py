"""Letterboxing, there and back: image, depth and label stay on each other."""

import cv2
import numpy as np
import pytest
import torch
from tiny_data import random_frame

from nyuseg.dataloading.letterbox import content_size, letterbox
from nyuseg.inference.grid import from_grid, to_mask

SIZE = (96, 160)


@pytest.mark.parametrize(
    ("native", "size", "content"),
    [
        ((480, 640), (480, 640), (480, 640)),
        ((480, 640), (240, 320), (240, 320)),
        ((512, 512), (240, 320), (240, 240)),
        ((4000, 3000), (480, 640), (480, 360)),
        ((37, 53), (480, 640), (448, 640)),
        ((53, 37), (480, 640), (480, 336)),
        ((1, 1), (240, 320), (240, 240)),
        ((2, 2000), (240, 320), (4, 320)),
    ],
)
def test_content_keeps_the_aspect_ratio(
    native: tuple[int, int], size: tuple[int, int], content: tuple[int, int]
) -> None:
    assert content_size(native, size) == content


def test_frame_of_the_inputs_size_is_untouched() -> None:
    frame = random_frame((480, 640))
    for kind, pixels in letterbox(frame, (480, 640)).items():
        assert pixels.dtype == frame[kind].dtype
        np.testing.assert_array_equal(pixels, frame[kind])


@pytest.mark.parametrize(
    ("native", "size"),
    [
        ((37, 53), (480, 640)),
        ((53, 37), (96, 128)),
        ((1, 1), (240, 320)),
        ((4000, 3000), (240, 320)),
        ((512, 512), (240, 320)),
        ((3, 700), (96, 128)),
    ],
)
def test_fitted_frame_has_the_inputs_size_and_padding(
    native: tuple[int, int], size: tuple[int, int]
) -> None:
    frame = random_frame(native)
    frame["image"] |= 1  # No pixel of the frame itself is black, missing or void.
    frame["depth"] |= 1
    frame["label"] %= 13
    fitted = letterbox(frame, size)
    height, width = content_size(native, size)
    outside = np.ones(size, bool)
    outside[:height, :width] = False
    assert outside.any()
    for kind, filler in {"image": 0, "depth": 0, "label": 255}.items():
        assert fitted[kind].shape[:2] == size
        assert fitted[kind].dtype == frame[kind].dtype
        assert (fitted[kind][outside] == filler).all()
        assert (fitted[kind][~outside] != filler).all()


@pytest.mark.parametrize("native", [(37, 53), (301, 203)])
def test_depth_and_label_are_never_blended(native: tuple[int, int]) -> None:
    frame = random_frame(native)
    frame["label"] = np.where(frame["label"] < 6, 0, 12).astype(np.uint8)
    frame["depth"] = np.where(frame["label"] == 0, 1000, 9000).astype(np.uint16)
    fitted = letterbox(frame, SIZE)
    assert set(np.unique(fitted["label"])) == {0, 12, 255}
    assert set(np.unique(fitted["depth"])) == {0, 1000, 9000}
    np.testing.assert_array_equal(fitted["label"] == 0, fitted["depth"] == 1000)


@pytest.mark.parametrize("native", [(48, 80), (201, 333), (333, 201)])
def test_fitted_kinds_lie_on_each_other(native: tuple[int, int]) -> None:
    # A ramp in the image and the same ramp in depth: a shift between the ways of scaling shows.
    y, x = np.mgrid[: native[0], : native[1]]
    ramp = np.stack([x * 250 / native[1], y * 250 / native[0], 0 * x], 2).round().astype(np.uint8)
    depth = (1 + y * native[1] + x).astype(np.uint32)
    frame = {"image": ramp, "depth": (depth % 65536).astype(np.uint16)}
    fitted = letterbox(frame, SIZE)
    height, width = content_size(native, SIZE)
    target_y, target_x = np.mgrid[:height, :width]
    source_x = (target_x + 0.5) * native[1] / width - 0.5
    source_y = (target_y + 0.5) * native[0] / height - 0.5
    inner = (slice(2, height - 2), slice(2, width - 2))
    for channel, expected in ((0, source_x * 250 / native[1]), (1, source_y * 250 / native[0])):
        found = fitted["image"][:height, :width, channel][inner]
        assert np.abs(found - expected[inner]).max() <= 250 / min(native) * 0.5 + 1
    taken = depth[source_y.round().astype(int).clip(0), source_x.round().astype(int).clip(0)]
    found = fitted["depth"][:height, :width].astype(int)
    same = found == taken % 65536
    # Halfway between two pixels either of them is nearest.
    halfway = (np.abs(source_x % 1 - 0.5) < 0.01) | (np.abs(source_y % 1 - 0.5) < 0.01)
    assert (same | halfway).all()
    assert same.mean() > 0.2


@pytest.mark.parametrize("native", [(480, 640), (37, 53), (53, 37), (300, 200)])
def test_painted_grid_comes_back_to_its_place(native: tuple[int, int]) -> None:
    size = (192, 256)
    height, width = (n // 4 for n in content_size(native, size))
    truth = np.full(native, 3)
    truth[: native[0] // 3, : native[1] // 2] = 7  # Top left, wide.
    truth[-native[0] // 4 :, -native[1] // 5 :] = 11  # Bottom right corner, narrow.
    rows = ((np.arange(height) + 0.5) * native[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * native[1] / width).astype(int)
    grid = torch.full((13, 48, 64), -1e6)
    grid[5] = 1e6  # Class 5 fills the padding and must not leak into the answer.
    painted = np.eye(13)[truth[np.ix_(rows, columns)]].transpose(2, 0, 1)
    grid[:, :height, :width] = torch.from_numpy(painted)
    mask = to_mask(grid, native, size)
    assert mask.dtype == np.uint8
    assert mask.shape == native
    assert set(np.unique(mask)) == {3, 7, 11}
    step = max(native[0] / height, native[1] / width)  # A grid cell in native pixels.
    reach = 2 * int(np.ceil(step)) + 1
    kernel = np.ones((reach, reach), np.uint8)
    edge = cv2.dilate(truth.astype(np.uint8), kernel) != cv2.erode(truth.astype(np.uint8), kernel)
    np.testing.assert_array_equal(mask[~edge], truth[~edge])
    assert edge.mean() < 0.5


def test_grid_of_half_precision_comes_back_in_fp32() -> None:
    grid = torch.rand(13, 24, 32).half()
    answer = from_grid(grid, (37, 53), (96, 128))
    assert answer.dtype == torch.float32
    assert answer.shape == (13, 37, 53)


@pytest.mark.parametrize("native", [(96, 128), (48, 64), (37, 51)])
def test_ramp_comes_back_at_the_centres_of_its_pixels(native: tuple[int, int]) -> None:
    size = (96, 128)
    height, width = (n // 4 for n in content_size(native, size))
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    answer = from_grid(torch.stack([x, y]), native, size).numpy()
    wanted_x = ((np.arange(native[1]) + 0.5) * width / native[1] - 0.5).clip(0, width - 1)
    wanted_y = ((np.arange(native[0]) + 0.5) * height / native[0] - 0.5).clip(0, height - 1)
    np.testing.assert_allclose(answer[0], np.tile(wanted_x, (native[0], 1)), atol=1e-4)
    np.testing.assert_allclose(answer[1], np.tile(wanted_y, (native[1], 1)).T, atol=1e-4)
