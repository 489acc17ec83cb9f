"""Depth codes, fitting, augmentation and samples: every pixel stays with its depth and label."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from nyuseg.config.loading import parse_config
from nyuseg.config.schema import Augment, Config
from nyuseg.data.depth import inverse_depth, linear_depth, log_depth
from nyuseg.data.frames import FrameFolder, frame_path, write_png
from nyuseg.data.letterbox import content_size, letterbox
from nyuseg.dataloading.augmentation import Augmentation
from nyuseg.dataloading.dataset import EpochSampler, PredictionSet, TrainingSet, mix_seed
from nyuseg.dataloading.inputs import network_images, training_inputs
from nyuseg.dataloading.loader import collate
from nyuseg.inference.grid import from_grid, to_mask
from nyuseg.utils.errors import UserError

CODES = [linear_depth, inverse_depth, log_depth]
STILL = {"flip": 0, "shift": 0, "scale": 0, "rotate": 0}
STRONG = {"flip": 0.5, "shift": 0.2, "scale": 0.3, "rotate": 30}
SIZE = (96, 160)
TinyFolder = Callable[..., list[str]]


def millimetres(*values: int) -> np.ndarray:
    return np.array([values], np.uint16)


def random_frame(size: tuple[int, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Random image, depth (with missing pixels) and label (with void)."""
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "depth": rng.integers(0, 65536, size, dtype=np.uint16),
        "label": rng.choice([*range(13), 255], size).astype(np.uint8),
    }


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


def small_config(**data: object) -> Config:
    options = {"size": [32, 48], "channels": ["rgb", "inverse_depth"]} | data
    return parse_config({"name": "tiny", "data": options, "augment": STRONG}, "test")


# Depth codes.


def test_depth_codes_by_hand() -> None:
    near, far = 0.71, 10.0
    depth = millimetres(710, 2000, 10000)
    np.testing.assert_allclose(linear_depth(depth), [[0, 1.29 / 9.29, 1]], atol=1e-6)
    middle = (0.5 - 1 / far) / (1 / near - 1 / far)  # 0.30571...
    np.testing.assert_allclose(inverse_depth(depth), [[1, middle, 0]], atol=1e-6)
    middle = np.log(2 / near) / np.log(far / near)  # 0.39150...
    np.testing.assert_allclose(log_depth(depth), [[0, middle, 1]], atol=1e-6)


@pytest.mark.parametrize("code", CODES)
def test_depth_beyond_the_range_is_clipped(code: Callable) -> None:
    found = code(millimetres(1, 709, 10001, 65535))
    near, far = code(millimetres(710, 10000))[0]
    np.testing.assert_allclose(found, [[near, near, far, far]], atol=1e-6)


@pytest.mark.parametrize("code", CODES)
def test_missing_depth_is_zero_and_never_near(code: Callable) -> None:
    with np.errstate(all="raise"):
        found = code(millimetres(0, 3000, 0))
    assert found.dtype == np.float32
    assert found[0, 0] == found[0, 2] == 0
    assert 0 < found[0, 1] < 1


@pytest.mark.parametrize("code", CODES)
def test_every_depth_has_a_finite_code(code: Callable) -> None:
    found = code(np.arange(65536, dtype=np.uint16).reshape(256, 256))
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    steps = np.diff(found.ravel()[710:10001])
    assert (steps < 0).all() if code is inverse_depth else (steps > 0).all()


# Fitting.


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


# Augmentation.


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


# Samples.


def training_set(tiny_folder: TinyFolder, root: Path, **data: object) -> TrainingSet:
    ids = tiny_folder(root, [(32, 48), (37, 53), (64, 33), (20, 90)])
    return TrainingSet(FrameFolder(root, "train"), ids, small_config(**data), fold=1)


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, torch.Tensor | np.ndarray):
            assert np.array_equal(value, other[key]), key
        else:
            assert value == other[key]


def on_device(samples: TrainingSet, key: tuple[int, int]) -> dict:
    """A batch of one training sample, as the network gets it."""
    return training_inputs(collate([samples[key]]), samples.data, torch.device("cpu"))


def test_training_sample_keeps_the_contract(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    samples = training_set(tiny_folder, tmp_path)
    assert len(samples) == 4
    for index, size in enumerate([(32, 48), (37, 53), (64, 33), (20, 90)]):
        sample = on_device(samples, (0, index))
        assert set(sample) == {"image", "label", "depth", "depth_valid", "id", "size"}
        assert (sample["id"], sample["size"]) == ([f"90000{index + 1}"], [size])
        assert (sample["image"].shape, sample["image"].dtype) == ((1, 4, 32, 48), torch.float32)
        assert sample["image"].is_contiguous(memory_format=torch.channels_last)
        assert (sample["label"].shape, sample["label"].dtype) == ((1, 32, 48), torch.int64)
        assert (sample["depth"].shape, sample["depth"].dtype) == ((1, 1, 32, 48), torch.float32)
        assert sample["depth_valid"].shape == (1, 1, 32, 48)
        assert sample["depth_valid"].dtype == torch.bool
        assert set(sample["label"].unique().tolist()) <= {*range(13), 255}
        assert 0 <= sample["depth"].min() < sample["depth"].max() <= 1
        assert torch.isfinite(sample["image"]).all()


def test_missing_depth_and_borders_are_not_valid(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    ids = tiny_folder(tmp_path, [(32, 24)])  # Fills the left half of the input.
    config = small_config().model_copy(update={"augment": Augment(**STILL)})
    source = FrameFolder(tmp_path, "train")
    batch = on_device(TrainingSet(source, ids, config, 0), (0, 0))
    sample = {key: batch[key][0] for key in ("image", "label", "depth", "depth_valid")}
    native = source.read(ids[0], ("depth", "label"))
    valid = sample["depth_valid"][0].numpy()
    np.testing.assert_array_equal(valid[:, :24], native["depth"] > 0)
    assert not valid[:, 24:].any()
    assert (sample["depth"][0].numpy()[~valid] == 0).all()
    assert (sample["image"][3].numpy()[~valid] == 0).all()
    np.testing.assert_array_equal(sample["label"][:, :24], native["label"])
    assert (sample["label"][:, 24:] == 255).all()


@pytest.mark.parametrize(
    "channels",
    [
        ["rgb"],
        ["rgb", "linear_depth"],
        ["rgb", "log_depth", "xy"],
        ["rgb", "xy", "inverse_depth", "linear_depth", "log_depth"],
    ],
)
def test_channels_lie_in_the_configs_order(channels: list[str]) -> None:
    data = small_config(channels=channels, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 2]).data
    frame = random_frame((5, 9))
    planes = network_images(collate([frame]), data, torch.device("cpu"))[0]
    assert planes.dtype == torch.float32
    assert len(planes) == data.channel_count
    rgb = (frame["image"] / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2]
    expected = {
        "rgb": list(rgb.transpose(2, 0, 1)),
        "xy": [np.tile(np.linspace(0, 1, 9), (5, 1)), np.tile(np.linspace(0, 1, 5), (9, 1)).T],
        "linear_depth": [linear_depth(frame["depth"])],
        "inverse_depth": [inverse_depth(frame["depth"])],
        "log_depth": [log_depth(frame["depth"])],
    }
    wanted = np.stack([plane for channel in channels for plane in expected[channel]])
    np.testing.assert_allclose(planes.numpy(), wanted, atol=1e-5)
    if data.xy_channels:
        np.testing.assert_allclose(planes[data.xy_channels], expected["xy"], atol=1e-6)


def test_sample_depends_on_its_key_alone(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    samples = training_set(tiny_folder, tmp_path)
    keys = [(epoch, index) for epoch in (0, 1) for index in range(4)]
    forward = {key: samples[key] for key in keys}
    fresh = TrainingSet(FrameFolder(tmp_path, "train"), samples.ids, samples.config, 1)
    for key in keys[::-1]:
        assert_same(forward[key], fresh[key])


def test_epoch_fold_and_seed_change_the_sample(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    samples = training_set(tiny_folder, tmp_path)
    config = samples.config
    reseeded = config.model_copy(update={"seed": config.seed + 1})
    others = [
        samples[1, 0],
        TrainingSet(FrameFolder(tmp_path, "train"), samples.ids, config, 2)[0, 0],
        TrainingSet(FrameFolder(tmp_path, "train"), samples.ids, reseeded, 1)[0, 0],
    ]
    for other in others:
        assert not np.array_equal(samples[0, 0]["image"], other["image"])


@pytest.mark.filterwarnings("ignore:.*pin_memory")
def test_workers_change_nothing(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    samples = training_set(tiny_folder, tmp_path)

    def epoch(workers: int) -> list[dict]:
        sampler = EpochSampler(len(samples), 42, 1)
        sampler.epoch = 3
        loader = DataLoader(samples, 2, sampler=sampler, num_workers=workers, collate_fn=collate)
        return list(loader)

    alone, many = epoch(0), epoch(2)
    assert len(alone) == 2
    assert alone[0]["image"].shape == (2, 32, 48, 3)
    assert len(alone[0]["id"]) == len(alone[0]["size"]) == 2
    for one, other in zip(alone, many, strict=True):
        assert_same(one, other)


def test_epoch_order_is_a_permutation_of_its_own() -> None:
    def order(epoch: int, seed: int = 42, fold: int = 0) -> list[tuple[int, int]]:
        sampler = EpochSampler(50, seed, fold)
        sampler.epoch = epoch
        assert len(sampler) == 50
        return list(sampler)

    assert {epoch for epoch, _ in order(4)} == {4}
    assert sorted(index for _, index in order(4)) == list(range(50))
    assert order(4) == order(4)
    orders = [order(0), order(1), order(0, fold=1), order(0, seed=43), order(1, fold=1)]
    assert len({tuple(index for _, index in one) for one in orders}) == 5


def test_mixed_seeds_differ_in_every_place() -> None:
    seeds = {mix_seed(42, a, b, c) for a in range(5) for b in range(10) for c in range(20)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("split", ["train", "test"])
def test_prediction_needs_no_label_anywhere(
    tiny_folder: TinyFolder, tmp_path: Path, split: str
) -> None:
    ids = tiny_folder(tmp_path, [(37, 53), (32, 48)], test=[(20, 90)])
    for label in (tmp_path / "train/label").iterdir():
        label.unlink()
    (tmp_path / "train/label").rmdir()
    ids = ids if split == "train" else ["990001"]
    samples = PredictionSet(FrameFolder(tmp_path, split), ids, small_config().data)
    assert len(samples) == len(ids)
    sample = samples[0]
    assert set(sample) == {"image", "depth", "id", "size"}
    assert sample["id"] == ids[0]
    assert sample["size"] == ((37, 53) if split == "train" else (20, 90))
    assert network_images(collate([sample]), samples.data, torch.device("cpu")).shape == (
        *(1, 4, 32, 48),
    )


def test_prediction_input_is_the_training_input(tiny_folder: TinyFolder, tmp_path: Path) -> None:
    samples = training_set(tiny_folder, tmp_path)
    still = samples.config.model_copy(update={"augment": Augment(**STILL)})
    trained = TrainingSet(FrameFolder(tmp_path, "train"), samples.ids, still, 0)
    predicted = PredictionSet(FrameFolder(tmp_path, "train"), samples.ids, still.data)
    for index in range(4):
        seen = network_images(collate([predicted[index]]), still.data, torch.device("cpu"))
        assert torch.equal(on_device(trained, (0, index))["image"], seen)


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def eight_bit(path: Path) -> None:
    write_png(path, np.full((32, 48), 9, np.uint8))


def other_size(path: Path) -> None:
    write_png(path, np.full((48, 32), 900, np.uint16))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (remove, "no such file"),
        (truncate, "truncated"),
        (empty, "cannot be decoded"),
        (eight_bit, "expected 16-bit depth in mm, found 8-bit, 1 channel"),
        (other_size, "depth is 48x32, its image 32x48"),
    ],
)
def test_unreadable_depth_is_an_error(
    tiny_folder: TinyFolder, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    ids = tiny_folder(tmp_path, [(32, 48), (32, 48)])
    path = frame_path(tmp_path, "train", "depth", ids[1])
    spoil(path)
    config = small_config()
    for read in (
        lambda: TrainingSet(FrameFolder(tmp_path, "train"), ids, config, 0)[0, 1],
        lambda: PredictionSet(FrameFolder(tmp_path, "train"), ids, config.data)[1],
    ):
        with pytest.raises(UserError) as error:
            read()
        assert str(error.value).startswith(f"{path}: {words}")
    TrainingSet(FrameFolder(tmp_path, "train"), ids, config, 0)[
        0, 0
    ]  # The other frame is none the worse.


@pytest.mark.parametrize("kind", ["image", "label"])
def test_missing_image_or_label_is_an_error(
    tiny_folder: TinyFolder, tmp_path: Path, kind: str
) -> None:
    ids = tiny_folder(tmp_path, [(32, 48)])
    path = frame_path(tmp_path, "train", kind, ids[0])
    path.unlink()
    with pytest.raises(UserError, match=f"{path}: no such file"):
        TrainingSet(FrameFolder(tmp_path, "train"), ids, small_config(), 0)[0, 0]
