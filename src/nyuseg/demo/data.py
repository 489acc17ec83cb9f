"""Writes the demo data: random rooms in the layout of the competition, see frames.py."""

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from nyuseg.data.classes import NUM_CLASSES
from nyuseg.data.frames import png_path, write_png
from nyuseg.data.listing import visible
from nyuseg.demo.materials import Rng
from nyuseg.demo.render import World, cast, radiance
from nyuseg.demo.rooms import SCENE_TYPES, make_scene, propose_camera
from nyuseg.demo.sensor import depth_map, drawn_labels, photo
from nyuseg.demo.shapes import Camera
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import write_text
from nyuseg.utils.progress import progress
from nyuseg.utils.signals import leave_to_parent, shielded

PREVIEW = (24, 32)
CANDIDATES = 8


@dataclass(frozen=True)
class Task:
    """One scene to render: its number over train and test, its frames' first id, its folder."""

    root: Path
    split: str
    number: int
    name: str
    scene_type: str
    first_id: int
    frames: int
    size: tuple[int, int]
    seed: int


def write_demo(
    root: Path,
    scenes: int = 30,
    frames: int = 4,
    test_scenes: int = 15,
    size: tuple[int, int] = (240, 320),
    seed: int = 0,
) -> None:
    """Write `scenes` train and `test_scenes` test rooms, `frames` views each, below `root`.

    Writes train/{image,depth,label}, test/{image,depth}, test_label/ (the hidden truth) and
    scenes.csv (image_id,scene,scene_type). `size` is (height, width) in pixels. The same arguments
    give the same bytes, on any number of processor cores. Raises UserError when `root` holds images
    that are not of this set.
    """
    tasks = [
        Task(root, "train" if n < scenes else "test", n, f"{kind}_{n // len(SCENE_TYPES) + 1:02d}",
             kind, n * frames, frames, size, seed)
        for n in range(scenes + test_scenes)
        for kind in (SCENE_TYPES[n % len(SCENE_TYPES)],)
    ]  # fmt: skip
    _refuse_foreign(root, scenes * frames, test_scenes * frames)
    rows = ["image_id,scene,scene_type"]
    for lines in progress(_run(tasks), "demo rooms", len(tasks), "room"):
        rows += lines
    write_text(root / "scenes.csv", "\n".join(rows) + "\n")


def _refuse_foreign(root: Path, train: int, test: int) -> None:
    """Never mix demo frames into, or write them over, the competition's own data."""
    for split, ids in (("train", range(train)), ("test", range(train, train + test))):
        own = {f"{number:06d}.png" for number in ids}
        for path in visible(root / split / "image"):
            if path.name not in own:
                raise UserError(f"{path}: not of this demo set; remove {root} or name a new folder")


def _run(tasks: list[Task]) -> Iterable[list[str]]:
    workers = min(os.cpu_count() or 1, len(tasks) // 4)
    if workers < 2:
        yield from map(write_scene, tasks)
        return
    # Not by fork: the caller may have threads running (torch, OpenCV).
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker) as pool:
        with shielded():
            lines = pool.map(write_scene, tasks)
        yield from lines


def _start_worker() -> None:
    leave_to_parent()
    cv2.setNumThreads(1)


def write_scene(task: Task) -> list[str]:
    """Render and write one scene; returns its lines of scenes.csv."""
    rng = np.random.default_rng(np.random.SeedSequence((task.seed, task.number)))
    world = World(make_scene(task.scene_type, rng))
    lines = []
    for n, camera in enumerate(choose_cameras(world, task.frames, rng)):
        image_id = f"{task.first_id + n:06d}"
        image, depth, label = render(world, camera, task.size, rng)
        write_png(png_path(task.root, task.split, "image", image_id), image)
        write_png(png_path(task.root, task.split, "depth", image_id), depth)
        labels = task.root / ("train/label" if task.split == "train" else "test_label")
        write_png(labels / f"{image_id}.png", label)
        lines.append(f"{image_id},{task.name},{task.scene_type}")
    return lines


def render(
    world: World, camera: Camera, size: tuple[int, int], rng: Rng
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One frame: image uint8 [H,W,3], depth uint16 [H,W] in mm (0 = missing), label uint8 [H,W]."""
    hits = cast(world, camera, *size)
    true = world.label[hits.index]
    scene = world.scene
    image = photo(radiance(world, hits), scene.white, scene.exposure, rng)
    return image, depth_map(hits.depth, true, rng), drawn_labels(true, rng)


def choose_cameras(world: World, count: int, rng: Rng) -> list[Camera]:
    """Cameras that stand well, preferring views of classes the scene has shown little of yet."""
    shown = np.full(NUM_CLASSES, 0.01)
    cameras = []
    for _ in range(count):
        views = [_view(world, rng) for _ in range(CANDIDATES)]
        camera, shares = max(views, key=lambda view: np.sum(np.sqrt(view[1] / shown)))
        shown += shares
        cameras.append(camera)
    return cameras


def _view(world: World, rng: Rng) -> tuple[Camera, np.ndarray]:
    """A camera that is not nose to a wall, with the share of the image of each class [13]."""
    while True:
        camera = propose_camera(world.scene, rng)
        hits = cast(world, camera, *PREVIEW)
        if np.median(hits.depth) > 1.7 and np.quantile(hits.depth, 0.03) > 0.7:
            counts = np.bincount(world.label[hits.index].ravel(), minlength=NUM_CLASSES)
            return camera, counts / counts.sum()
