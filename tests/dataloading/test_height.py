"""Heights above the floor and which way surfaces face, of rooms whose answers are known."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from nyuseg.config.loading import parse_config
from nyuseg.config.schema import Config
from nyuseg.data.frames import FrameFolder, png_path, write_png
from nyuseg.dataloading.dataset import PredictionSet, TrainingSet
from nyuseg.dataloading.height import (
    COARSE,
    LOWEST,
    find_gravity,
    frame_geometry,
    nearness,
    unit_normals,
)
from nyuseg.dataloading.inputs import network_images, training_inputs
from nyuseg.dataloading.loader import collate
from nyuseg.dataloading.slopes import FOCAL
from nyuseg.inference.ensemble import Ensemble
from nyuseg.inference.predictor import Predictor
from nyuseg.models.network import build_model
from nyuseg.models.normalisation import resolve_normalisation

SIZE = (240, 320)
CPU = torch.device("cpu")
BOTH = ("height", "upward")
# What is where, in metres from the camera: to the right, downwards, forwards. The table is a slab.
FLOOR, CEILING, WALL, SIDE, TABLE = 1.4, -1.2, 4.0, -1.5, 0.7
CHANNELS = ["rgb", "upward", "inverse_depth", "height"]


def turned(pitch: float, roll: float) -> np.ndarray:
    """How a camera sees the room that looks down by `pitch` degrees and is turned by `roll`."""
    p, r = np.radians([pitch, roll])
    down = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    return np.array([[np.cos(r), np.sin(r), 0], [-np.sin(r), np.cos(r), 0], [0, 0, 1]]) @ down.T


def room(
    pitch: float = 0, roll: float = 0, size: tuple[int, int] = SIZE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth uint16 [H,W] in mm, the true height in metres and the true upward cosine [H,W]."""
    height, width = size
    focal = FOCAL * max(size)
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    rays = np.stack([x / focal, y / focal, np.ones(size)], -1) @ turned(pitch, roll)
    nearest, upward = np.full(size, np.inf), np.zeros(size)
    for axis, place, faces in ((1, FLOOR, 1), (1, CEILING, -1), (2, WALL, 0), (0, SIDE, 0)):
        with np.errstate(divide="ignore"):
            reach = place / rays[..., axis]
        closer = (reach > 0) & (reach < nearest)
        nearest, upward = np.where(closer, reach, nearest), np.where(closer, faces, upward)
    reach = np.divide(TABLE, rays[..., 1], out=np.full(size, np.inf), where=rays[..., 1] > 0)
    place = rays * np.where(np.isfinite(reach), reach, 0)[..., None]
    on = np.isfinite(reach) & (abs(place[..., 0] - 0.4) < 0.5) & (abs(place[..., 2] - 2.4) < 0.4)
    nearest, upward = np.where(on, reach, nearest), np.where(on, 1, upward)
    points = rays * nearest[..., None]
    return np.rint(nearest * 1000).astype(np.uint16), FLOOR - points[..., 1], upward


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (20, 0), (-15, 6), (30, -8)])
def test_a_tilted_camera_sees_the_same_heights(pitch: float, roll: float) -> None:
    depth, height, upward = room(pitch, roll)
    found = frame_geometry(depth, BOTH)
    assert found["height"].dtype == np.uint16 and found["upward"].dtype == np.uint8
    above = np.maximum(height - np.quantile(height, LOWEST), 0)
    assert np.abs(found["height"] / 1000 - above).max() < 0.05
    cosine = (found["upward"].astype(float) - 128) / 127
    wrong = np.abs(cosine - upward) > 0.15
    assert wrong.mean() < 0.15  # Where surfaces meet, it is a mean of both.
    assert np.abs(cosine - upward)[-1, 40:-40].mean() < 0.1  # Also at the rim.
    for faces in np.unique(upward):
        assert abs(np.median(cosine[upward == faces]) - faces) < 0.02


def test_a_table_is_as_high_as_it_is_wherever_the_camera_looks() -> None:
    for pitch in (10, 25):
        depth, height, upward = room(pitch)
        table = (upward == 1) & (np.abs(height - (FLOOR - TABLE)) < 1e-6)
        assert table.sum() > 1000
        found = frame_geometry(depth, ("height",))["height"][table]
        assert np.median(found) == pytest.approx(1000 * (FLOOR - TABLE), abs=30)


def test_what_is_missing_stays_missing_and_nothing_else_becomes_so() -> None:
    depth, _, _ = room(20)
    whole = frame_geometry(depth, BOTH)
    depth[60:120, 40:200] = 0
    depth[200, 300] = 65535
    found = frame_geometry(depth, BOTH)
    for kind, values in found.items():
        assert (values[depth == 0] == 0).all(), kind
    assert (found["height"][depth > 0] > 0).all()
    apart = np.ones(SIZE, bool)
    apart[52:128, 32:208] = apart[190:210, 290:310] = False
    change = np.abs(found["height"].astype(int) - whole["height"])[apart]
    assert change.max() < 60  # A hole moves the floor by next to nothing.
    nothing = frame_geometry(np.zeros(SIZE, np.uint16), BOTH)
    assert not nothing["height"].any() and not nothing["upward"].any()


def test_far_errors_do_not_lower_the_floor() -> None:
    depth, _, _ = room(20)
    whole = frame_geometry(depth, ("height",))["height"]
    depth[200:220, 40:200] = 60000
    found = frame_geometry(depth, ("height",))["height"]
    apart = np.ones(SIZE, bool)
    apart[200:220, 40:200] = False
    assert np.abs(found.astype(int) - whole)[apart].max() < 100
    far = frame_geometry(np.full(SIZE, 30000, np.uint16), ("height",))["height"]
    assert far.min() == 1 and far.max() > 10000


def test_a_sparse_depth_has_heights_where_it_is() -> None:
    depth = room(20)[0]
    dense = frame_geometry(depth, ("height",))["height"].astype(int)
    random = np.random.default_rng(2).random(SIZE)
    for seen in (random > 0.5, random > 0.7):
        sparse = depth * seen
        found = frame_geometry(sparse, BOTH)
        assert ((found["height"] > 0) == seen).all()
        assert np.abs(found["height"] - dense)[seen].max() < 100
        assert (found["upward"][seen] > 0).mean() > 0.9
    sparse = np.zeros_like(depth)
    sparse[1::4, 2::4] = depth[1::4, 2::4]
    assert ((frame_geometry(sparse, ("height",))["height"] > 0) == (sparse > 0)).all()


def test_a_camera_on_its_side_has_the_same_focal_length() -> None:
    depth, height, _ = room(20, size=SIZE[::-1])
    above = np.maximum(height - np.quantile(height, LOWEST), 0)
    found = frame_geometry(depth, ("height",))["height"] / 1000
    assert np.abs(found - above).max() < 0.05


@pytest.mark.parametrize("shape", [(2, 3), (32, 48), (1, 1)])
def test_a_tiny_frame_has_heights(shape: tuple[int, int]) -> None:
    depth = np.random.default_rng(0).integers(500, 9000, shape).astype(np.uint16)
    found = frame_geometry(depth, BOTH)
    assert {values.shape for values in found.values()} == {shape}
    assert (found["height"] > 0).all()


def test_without_surfaces_the_camera_is_level() -> None:
    assert find_gravity(np.zeros((0, 3))).tolist() == [0, 1, 0]


@pytest.mark.parametrize("normal", [(0, 0, 1), (0.26, 0, 0.97), (-0.5, 0, 0.87), (0, 0.09, 1)])
def test_a_single_wall_is_upright_and_the_camera_held_straight(normal) -> None:
    height, width = SIZE
    focal = FOCAL * width
    x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    metres = 2 * normal[2] / ((normal[0] * x + normal[1] * y) / focal + normal[2])
    noise = np.random.default_rng(5).normal(0, 1.4e-3, SIZE) * metres**2
    for sign in (1, -1):  # And as in a mirror.
        depth = np.rint((metres + noise) * 1000).astype(np.uint16)[:, ::sign]
        gravity = find_gravity(unit_normals(nearness(depth), COARSE))
        assert np.degrees(np.arccos(gravity[1])) < 10
        above = (-y / focal * metres)[:, ::sign]
        found = frame_geometry(depth, ("height",))["height"] / 1000
        assert np.abs(found - np.maximum(above - np.quantile(above, LOWEST), 0)).max() < 0.2


def config_with(
    channels: Sequence[str] = CHANNELS, size: tuple[int, int] = (96, 128), **augment: object
) -> Config:
    given = {
        "name": "tiny",
        "data": {"size": size, "channels": channels},
        "model": {"encoder": "tu-test_resnet", "encoder_weights": None, "depth_head": False},
        "tta": {"views": [{}, {"scale": 1.5, "flip": True}]},
        "augment": {"rotate": 0, "scale": 0, "shift": 0, "flip": 0} | augment,
    }
    return resolve_normalisation(parse_config(given, "test"))


@pytest.fixture
def rooms(tiny_folder: Callable[..., list[str]], tmp_path: Path) -> list[str]:
    """A folder with the room from two sides."""
    ids = tiny_folder(tmp_path, [SIZE] * 2)
    for image_id, view in zip(ids, ((10, 0), (25, -5)), strict=True):
        write_png(png_path(tmp_path, "train", "depth", image_id), room(*view)[0])
    return ids


def test_a_crop_keeps_the_heights_of_the_whole_frame(rooms: list[str], tmp_path: Path) -> None:
    config = config_with(crop=(32, 64), zoom=(1.5, 2.0))
    samples = TrainingSet(FrameFolder(tmp_path, "train"), rooms, config, 0)
    planes = 0
    for epoch in range(6):
        sample = samples[epoch, 0]
        arrays = [values for values in sample.values() if isinstance(values, np.ndarray)]
        assert samples.sample_bytes == sum(one.nbytes for one in arrays if one.ndim)
        image = training_inputs(collate([sample]), config.data, CPU)["image"][0]
        np.testing.assert_allclose(image[5], np.minimum(sample["height"] / 1500 - 1, 1), atol=1e-6)
        np.testing.assert_allclose(image[3], (sample["upward"] / 127) - 128 / 127, atol=1e-6)
        planes += (sample["height"] > 1000).all()  # No floor in it, and it is no floor.
    assert planes


@pytest.mark.parametrize("more", [{"crop": (32, 64), "zoom": (0.5, 2.0)}, {"scale": 0.3}])
def test_they_move_as_the_depth_moves(rooms: list[str], tmp_path: Path, more) -> None:
    config = config_with(rotate=15, flip=0.5, shift=0.2, **more)
    sample = TrainingSet(FrameFolder(tmp_path, "train"), rooms, config, 0)[0, 1]
    assert ((sample["height"] > 0) == (sample["depth"] > 0)).all()
    assert ((sample["upward"] > 0) <= (sample["depth"] > 0)).all()
    assert 0.1 < (sample["height"] > 0).mean() < 1


def test_the_predicted_frame_has_them_at_its_place(rooms: list[str], tmp_path: Path) -> None:
    config = config_with()
    seen = PredictionSet(FrameFolder(tmp_path, "train"), rooms, config.data)
    batch = network_images(collate([seen[0], seen[1]]), config.data, CPU)
    for number, view in enumerate(((10, 0), (25, -5))):
        _, height, upward = room(*view)
        # 240x320 in 96x128: every 2.5th pixel.
        wanted = np.minimum((height - height.min()) / 1.5 - 1, 1)[1::5, 1::5]
        assert np.abs(batch[number, 5, ::2, ::2].numpy() - wanted).max() < 0.15
        close = np.abs(batch[number, 3, ::2, ::2].numpy() - upward[1::5, 1::5]) < 0.15
        assert close.mean() > 0.8


def test_each_experiment_of_a_blend_sees_its_own_channels(rooms: list[str], tmp_path: Path) -> None:
    source = FrameFolder(tmp_path, "train")
    kinds = [("rgb", "upward"), ("rgb",), ("rgb", "height", "inverse_depth")]
    ensembles = []
    for channels in kinds:
        config = config_with(channels=channels)
        torch.manual_seed(4)
        network = build_model(config.model, config.data)
        ensembles.append(Ensemble([network], config, CPU))
    both = Predictor(ensembles)
    assert set(both.read(source, rooms)) == {"id", "size", "image", "depth", "height", "upward"}
    answer = both.answer(both.read(source, rooms))[0]
    alone = [Predictor([one]) for one in ensembles]
    each = torch.stack([one.answer(one.read(source, rooms))[0] for one in alone])
    torch.testing.assert_close(answer, each.mean(0))
    assert set(alone[1].read(source, rooms)) == {"id", "size", "image"}


def test_a_blend_of_two_sizes_reads_them_in_both(rooms: list[str], tmp_path: Path) -> None:
    source, ensembles = FrameFolder(tmp_path, "train"), []
    for size in ((64, 96), (96, 128)):
        config = config_with(size=size)
        network = build_model(config.model, config.data)
        ensembles.append(Ensemble([network], config, CPU, tta=True))
    both = Predictor(ensembles)
    batch = both.read(source, rooms)
    for ensemble in ensembles:
        data = ensemble.config.data
        seen = network_images(batch, data, CPU, both.sizes.index(data.size))
        alone = Predictor([ensemble]).read(source, rooms)
        torch.testing.assert_close(seen, network_images(alone, data, CPU))
    assert torch.isfinite(both.answer(batch)[0]).all()


def test_a_mirrored_frame_is_seen_mirrored(rooms: list[str], tmp_path: Path) -> None:
    data = config_with().data
    source = FrameFolder(tmp_path, "train")
    straight = network_images(collate([PredictionSet(source, rooms, data)[1]]), data, CPU)
    for kind in ("image", "depth"):
        path = png_path(tmp_path, "train", kind, rooms[1])
        write_png(path, np.ascontiguousarray(source.read(rooms[1])[kind][:, ::-1]))
    mirrored = network_images(collate([PredictionSet(source, rooms, data)[1]]), data, CPU)
    difference = (mirrored.flip(-1) - straight)[:, 3:].abs()
    assert difference.mean() < 0.01 and (difference > 0.1).float().mean() < 0.01


def test_what_the_network_does_not_see_of_the_depth_has_no_height(
    rooms: list[str], tmp_path: Path
) -> None:
    config = config_with(depth_holes=1)
    sample = TrainingSet(FrameFolder(tmp_path, "train"), rooms, config, 0)[0, 1]
    hidden = (sample["depth_seen"] == 0) & (sample["depth"] > 0)
    assert hidden.any() and (sample["height"][hidden] > 0).any()
    image = training_inputs(collate([sample]), config.data, CPU)["image"][0].numpy()
    assert (image[3:][:, hidden] == 0).all() and (image[5][~hidden] != 0).any()


def test_only_who_wants_them_pays_for_them(rooms: list[str], tmp_path: Path) -> None:
    plain = config_with().data.model_copy(update={"channels": ("rgb", "inverse_depth")})
    source = FrameFolder(tmp_path, "train")
    assert set(PredictionSet(source, rooms, plain)[0]) == {"image", "depth", "id", "size"}
    high = plain.model_copy(update={"channels": ("rgb", "height")})
    assert set(PredictionSet(source, rooms, high)[0]) == {"image", "depth", "height", "id", "size"}
