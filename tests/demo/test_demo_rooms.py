import csv
import os
from math import radians, tan
from pathlib import Path

import numpy as np
import pytest

from nyuseg.data.classes import CLASS_NAMES, NUM_CLASSES, VOID
from nyuseg.data.frames import list_ids, read_depth, read_image, read_label
from nyuseg.demo.data import render, write_demo
from nyuseg.demo.render import World, cast, focal
from nyuseg.demo.rooms import SCENE_TYPES, make_scene, propose_camera
from nyuseg.utils.errors import UserError

SIZE = (60, 80)
SCENES, FRAMES, TEST_SCENES = 5, 3, 2


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def rows(root: Path) -> dict[str, dict[str, str]]:
    with (root / "scenes.csv").open() as file:
        return {row["image_id"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    write_demo(root, SCENES, FRAMES, TEST_SCENES, SIZE)
    return root


def labels(root: Path) -> np.ndarray:
    files = sorted((root / "train/label").iterdir()) + sorted((root / "test_label").iterdir())
    return np.stack([read_label(path) for path in files])


def test_layout_is_the_competitions(demo: Path) -> None:
    train, test = list_ids(demo, "train"), list_ids(demo, "test")
    assert train == [f"{n:06d}" for n in range(SCENES * FRAMES)]
    assert test == [f"{n:06d}" for n in range(SCENES * FRAMES, (SCENES + TEST_SCENES) * FRAMES)]
    assert set(rows(demo)) == {*train, *test}
    folders = {str(p.relative_to(demo)) for p in demo.rglob("*") if p.is_dir()}
    assert folders == {"train", "train/image", "train/depth", "train/label", "test", "test/image",
                       "test/depth", "test_label"}  # fmt: skip
    assert sorted(p.stem for p in (demo / "test_label").iterdir()) == test


def test_files_of_a_frame_agree_in_size(demo: Path) -> None:
    for split, truth in (("train", "train/label"), ("test", "test_label")):
        for image_id in list_ids(demo, split):
            assert read_image(demo / split / "image" / f"{image_id}.png").shape == (*SIZE, 3)
            assert read_depth(demo / split / "depth" / f"{image_id}.png").shape == SIZE
            assert read_label(demo / truth / f"{image_id}.png").shape == SIZE


def test_scenes_are_whole_and_on_one_side(demo: Path) -> None:
    table = rows(demo)
    sides = {
        split: {table[i]["scene"] for i in list_ids(demo, split)} for split in ("train", "test")
    }
    assert not sides["train"] & sides["test"]
    assert len(sides["train"]) == SCENES and len(sides["test"]) == TEST_SCENES
    for row in table.values():
        assert row["scene_type"] in SCENE_TYPES and row["scene"].startswith(row["scene_type"])
    names = [table[i]["scene"] for i in sorted(table)]
    assert all(len(set(names[n : n + FRAMES])) == 1 for n in range(0, len(names), FRAMES))


def test_same_seed_same_bytes(demo: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "a", 1, FRAMES, 0, SIZE)
    again = content(tmp_path / "a")
    again.pop("scenes.csv")
    assert len(again) == 3 * FRAMES
    assert all((demo / name).read_bytes() == data for name, data in again.items())
    write_demo(tmp_path / "b", 1, 1, 0, SIZE, seed=1)
    other = content(tmp_path / "b")
    other.pop("scenes.csv")
    assert all(other[name] != again[name] for name in other)


def test_the_number_of_processes_changes_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    write_demo(tmp_path / "pool", 8, 1, 0, (30, 40))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    write_demo(tmp_path / "alone", 8, 1, 0, (30, 40))
    assert content(tmp_path / "pool") == content(tmp_path / "alone")


def test_all_classes_occur_and_void_stays_small(demo: Path) -> None:
    counts = np.bincount(labels(demo).ravel(), minlength=256)
    assert counts[:NUM_CLASSES].min() > 0, [
        CLASS_NAMES[i] for i in np.flatnonzero(counts[:13] == 0)
    ]
    assert counts[NUM_CLASSES:VOID].sum() == 0
    assert 0.03 < counts[VOID] / counts.sum() < 0.12


def test_depth_is_of_a_room_with_holes(demo: Path) -> None:
    depth = np.stack([read_depth(p) for p in sorted((demo / "train/depth").iterdir())])
    assert depth.dtype == np.uint16
    assert 0.005 < np.mean(depth == 0) < 0.1
    assert depth[depth > 0].min() > 400 and depth.max() < 10000
    assert all(np.median(d[d > 0]) > 1000 for d in depth)


def test_photos_are_neither_dark_nor_burnt(demo: Path) -> None:
    for path in (demo / "train/image").iterdir():
        assert 50 < read_image(path).mean() < 215


def test_floor_and_ceiling_are_level() -> None:
    """Back-projection of depth and label gives the room's height: depth is z, not ray length."""
    tested = set()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        world = World(make_scene(SCENE_TYPES[seed % len(SCENE_TYPES)], rng))
        camera = propose_camera(world.scene, rng)
        _, depth, label = render(world, camera, SIZE, rng)
        f = SIZE[1] / 2 / tan(radians(57 / 2))
        row, column = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
        z = depth / 1000
        seen = np.stack([(column - SIZE[1] / 2) * z / f, (row - SIZE[0] / 2) * z / f, z], -1)
        height = (seen @ camera.axes())[..., 2] + camera.position[2]
        for name, level in (("floor", 0.0), ("ceiling", world.scene.size[2])):
            at = (label == CLASS_NAMES.index(name)) & (depth > 0)
            if at.sum() > 30:
                tested.add(name)
                assert np.quantile(np.abs(height[at] - level), 0.9) < 0.1
    assert tested == {"floor", "ceiling"}


def test_the_view_is_the_same_at_each_size() -> None:
    rng = np.random.default_rng(3)
    world = World(make_scene("studio", rng))
    camera = propose_camera(world.scene, rng)
    small, large = cast(world, camera, 30, 40), cast(world, camera, 90, 120)
    assert focal(120) == pytest.approx(3 * focal(40))
    # Every third pixel of the large image has the centre of a pixel of the small one.
    np.testing.assert_allclose(small.depth, large.depth[1::3, 1::3], rtol=1e-4)
    assert (small.index == large.index[1::3, 1::3]).mean() > 0.99


def test_other_data_is_not_overwritten(tmp_path: Path) -> None:
    foreign = tmp_path / "train/image/000001.png"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"000001\.png"):
        write_demo(tmp_path, 1, 1, 0, (30, 40))
    assert content(tmp_path) == {"train/image/000001.png": b"mine"}
