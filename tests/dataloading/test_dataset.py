"""Samples: a pure function of seed, fold, epoch and index; prediction needs no label."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_data import random_frame
from torch.utils.data import DataLoader

from nyuseg.config.augment import Augment
from nyuseg.config.loading import parse_config
from nyuseg.config.schema import Config
from nyuseg.data.depth import inverse_depth, linear_depth, log_depth
from nyuseg.data.frames import FrameFolder, frame_path, write_png
from nyuseg.dataloading.dataset import EpochSampler, PredictionSet, TrainingSet
from nyuseg.dataloading.height import frame_geometry
from nyuseg.dataloading.inputs import network_images, training_inputs
from nyuseg.dataloading.letterbox import content_size
from nyuseg.dataloading.loader import collate
from nyuseg.dataloading.seeds import mix_seed
from nyuseg.dataloading.slopes import surface_slopes
from nyuseg.models.normalisation import resolve_normalisation
from nyuseg.utils.errors import UserError

STILL = {"flip": 0, "shift": 0, "scale": 0, "rotate": 0}
STRONG = {"flip": 0.5, "shift": 0.2, "scale": 0.3, "rotate": 30}
TinyFolder = Callable[..., list[str]]


def small_config(**data: object) -> Config:
    options = {"size": [32, 48], "channels": ["rgb", "inverse_depth"]} | data
    given = {"name": "tiny", "data": options, "augment": STRONG}
    return resolve_normalisation(parse_config(given, "test"))


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
        ["rgb", "slopes", "inverse_depth"],
        ["rgb", "upward", "slopes", "height", "log_depth"],
        ["rgb", "xy", "inverse_depth", "linear_depth", "log_depth"],
    ],
)
def test_channels_lie_in_the_configs_order(channels: list[str]) -> None:
    data = small_config(channels=channels, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 2]).data
    frame = random_frame((5, 9))
    frame |= frame_geometry(frame["depth"], ("height", "upward"))
    planes = network_images(collate([{**frame, "size": (5, 9)}]), data, torch.device("cpu"))[0]
    assert planes.dtype == torch.float32
    assert len(planes) == data.channel_count
    depth = torch.from_numpy(frame["depth"].astype(np.int32))[None]
    rgb = (frame["image"] / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.25, 2]
    longer = max(content_size((5, 9), data.size))
    expected = {
        "rgb": list(rgb.transpose(2, 0, 1)),
        "xy": [np.tile(np.linspace(0, 1, 9), (5, 1)), np.tile(np.linspace(0, 1, 5), (9, 1)).T],
        "linear_depth": [linear_depth(frame["depth"])],
        "inverse_depth": [inverse_depth(frame["depth"])],
        "log_depth": [log_depth(frame["depth"])],
        "height": [np.where(frame["height"] > 0, frame["height"] / 1500 - 1, 0).clip(max=1)],
        "upward": [np.where(frame["upward"] > 0, (frame["upward"] - 128.0) / 127, 0)],
        "slopes": list(surface_slopes(depth, longer, data.size[1])[0]),
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


def test_training_and_prediction_have_sizes_of_their_own(
    tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    samples = training_set(tiny_folder, tmp_path)
    geometry = {"working_size": [80, 120], "zoom": [0.5, 2], "crop": [64, 96]}
    config = samples.config.model_copy(update={"augment": Augment.model_validate(geometry)})
    source = FrameFolder(tmp_path, "train")
    cropped = TrainingSet(source, samples.ids, config, 1)
    again = TrainingSet(source, samples.ids, config, 1)
    for index in (3, 0, 2, 1):
        sample = cropped[5, index]
        assert_same(sample, again[5, index])
        assert not np.array_equal(sample["image"], cropped[6, index]["image"])
        assert sample["image"].shape == (64, 96, 3)
        assert on_device(cropped, (5, index))["label"].shape == (1, 64, 96)
        del sample["zoom"]  # A number.
        arrays = [values for values in sample.values() if isinstance(values, np.ndarray)]
        assert cropped.sample_bytes == sum(values.nbytes for values in arrays)
    assert PredictionSet(source, samples.ids, config.data)[0]["image"].shape == (32, 48, 3)


def test_rare_is_what_the_folds_own_training_frames_hold_least_of(
    tiny_folder: TinyFolder, tmp_path: Path
) -> None:
    ids = tiny_folder(tmp_path, [(64, 96)] * 3)
    for image_id, rare in zip(ids, (4, 4, 7), strict=True):
        label = np.full((64, 96), 1, np.uint8)
        label[40:48, :8] = rare
        write_png(frame_path(tmp_path, "train", "label", image_id), label)
    config = small_config()
    options = {**STILL, "crop": [32, 32], "rare_crop": 1}
    config = config.model_copy(update={"augment": Augment.model_validate(options)})
    source = FrameFolder(tmp_path, "train")
    samples = TrainingSet(source, ids[:2], config, 0)
    assert sum((samples[epoch, 0]["label"] == 4).any() for epoch in range(20)) > 15
    assert samples.augment.zoom_crop.inverse_shares[7] == 0


EVERYTHING = {
    "working_size": [48, 64],
    "zoom": [0.5, 2],
    "crop": [32, 48],
    "rare_crop": 0.5,
    "colour": 1,
    "blur": 0.5,
    "noise": 0.5,
    "copy_paste": 0.7,
    "depth_holes": 0.5,
    "depth_noise": 2,
    "depth_drop": 0.2,
}


@pytest.mark.parametrize("more", [{}, EVERYTHING])
@pytest.mark.filterwarnings("ignore:.*pin_memory")
def test_workers_change_nothing(tiny_folder: TinyFolder, tmp_path: Path, more: dict) -> None:
    samples = training_set(tiny_folder, tmp_path)
    augment = Augment.model_validate(STRONG | more)
    config = samples.config.model_copy(update={"augment": augment})
    samples = TrainingSet(samples.source, samples.ids, config, 1)

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
        (eight_bit, "expected 16-bit depth, found 8-bit, 1 channel"),
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
