"""Training frames decoded once into one memory-mapped file, for all epochs, folds and processes.

A frame takes 6 bytes a pixel: depth uint16, image uint8 x 3, label uint8, one after the other; in
data without depth 4. The index says where each frame begins and which source files it was made
from. The pictures are those of the files, bit for bit; a file that has changed since makes the
cache be built again.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nyuseg.data.fingerprint import Facts, describe, describe_all, differences
from nyuseg.data.frames import Frame, FrameFolder, frame_files, stored_kinds
from nyuseg.data.integrity import frame_sizes
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import atomic_folder
from nyuseg.utils.locks import only_writer
from nyuseg.utils.prefetch import in_order
from nyuseg.utils.progress import progress
from nyuseg.utils.records import Record

INDEX, FRAMES = "index.json", "frames.bin"
# Of each kind, in their order: type and values of a pixel.
STORED = {"depth": (np.uint16, 1), "image": (np.uint8, 3), "label": (np.uint8, 1)}
# Counts up when the layout of the file changes.
LAYOUT = 1


class CacheIndex(Record):
    """index.json: the kinds that are there, all bytes, and where each frame begins, with its height
    and width; files: what it was made from."""

    layout: int
    kinds: list[str]
    bytes: int
    frames: dict[str, tuple[int, int, int]]
    files: Facts


class FrameCache:
    """Reads frames out of a cache folder; a stand-in for FrameFolder(root, "train").

    Processes share the memory: the file is mapped, not loaded.
    """

    split = "train"

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        index = CacheIndex.read(folder / INDEX)
        self.kinds, self.places = index.kinds, index.frames
        self._bytes: np.ndarray | None = None

    def read(self, image_id: str, kinds: Sequence[str] = ("image", "depth")) -> Frame:
        """The arrays of one frame at its native size, read-only; see FrameFolder.read."""
        if self._bytes is None:
            self._bytes = np.asarray(np.memmap(self.folder / FRAMES, np.uint8, "r"))
        at, height, width = self.places[image_id]
        frame = {}
        for kind in self.kinds:
            dtype, values = STORED[kind]
            size = height * width * _pixel_bytes(kind)
            shape = (height, width, values)[: 2 + (values > 1)]
            frame[kind] = self._bytes[at : at + size].view(dtype).reshape(shape)
            at += size
        return {kind: frame[kind] for kind in kinds}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bytes": None}  # Another process maps the file itself.


def open_cache(
    root: Path, ids: Sequence[str], parent: Path, known: Facts | None = None
) -> FrameCache | FrameFolder:
    """The training frames of `root` from a cache below `parent`, built or renewed if need be.

    known: facts of the files, by keys of frame_files, so that they are not hashed once more.
    With too little room on the disk the frames come from their files, and a line says so. Raises
    UserError, naming it, for a file that is missing or broken.
    """
    folder = cache_folder(root, parent)
    with only_writer(folder, wait=True):
        reason = _stale(folder, root, ids)
        if reason is None:
            return FrameCache(root, folder)
        room = cache_bytes(root, len(ids))
        parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(parent).free
        if room > free:
            print(
                f"frame cache: needs {room / 1e9:.2f} GB, {free / 1e9:.2f} GB are free in {parent};"
                " reading the files instead; --set compute.cache=DIR puts it on another disk"
            )
            return FrameFolder(root, "train")
        print(f"frame cache: {reason}; decoding {len(ids)} frames into {folder}", flush=True)
        _build(folder, FrameFolder(root, "train"), ids, known or {})
    return FrameCache(root, folder)


def cache_folder(root: Path, parent: Path) -> Path:
    """Where the frames of `root` are kept below `parent`."""
    key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]
    return parent / f"{root.resolve().name}-{key}"


def cache_bytes(root: Path, count: int) -> int:
    """Bytes that a cache of `count` training frames takes at most."""
    pixel = sum(map(_pixel_bytes, _stored(root)))
    return pixel * count * max(h * w for h, w in frame_sizes(root, "train").values())


def _pixel_bytes(kind: str) -> int:
    dtype, values = STORED[kind]
    return np.dtype(dtype).itemsize * values


def _stored(root: Path) -> list[str]:
    """The kinds that the training frames have, in the order of STORED."""
    there = stored_kinds(root, "train")
    return [kind for kind in STORED if kind in there]


def known_facts(root: Path, parent: Path) -> Facts:
    """Facts of the files that a cache below `parent` was made from; none without a cache."""
    try:
        return CacheIndex.read(cache_folder(root, parent) / INDEX).files
    except UserError:
        return {}


def _build(folder: Path, source: FrameFolder, ids: Sequence[str], known: Facts) -> None:
    kinds = _stored(source.root)

    def decode(image_id: str) -> tuple[str, Frame, Facts]:
        # Before: a change while reading shows next time.
        paths = frame_files(source.root, [image_id], kinds)
        facts = {key: describe(path, known.get(key)) for key, path in paths.items()}
        return image_id, source.read(image_id, sorted(kinds, key="image".__ne__)), facts

    places: dict[str, tuple[int, int, int]] = {}
    files: Facts = {}
    position = 0
    threads = os.cpu_count() or 1
    with atomic_folder(folder, INDEX) as temporary, (temporary / FRAMES).open("wb") as file:
        decoded = in_order(decode, ids, threads, 2 * threads)
        for image_id, frame, facts in progress(decoded, "frame cache", len(ids)):
            height, width = frame["label"].shape
            places[image_id] = (position, height, width)
            files |= facts
            position += sum(file.write(np.ascontiguousarray(frame[kind]).data) for kind in kinds)
        index = CacheIndex(layout=LAYOUT, kinds=kinds, bytes=position, frames=places, files=files)
        index.write(temporary / INDEX)


def _stale(folder: Path, root: Path, ids: Sequence[str]) -> str | None:
    """Why a cache cannot be used; None when it can. A touched file is compared by its hash."""
    try:
        index = CacheIndex.read(folder / INDEX)
    except UserError:
        return "a new one"
    made_of = (index.layout, index.kinds, list(index.frames))
    if made_of != (LAYOUT, _stored(root), list(ids)):
        return "made of other frames"
    try:
        whole = (folder / FRAMES).stat().st_size == index.bytes
    except OSError:
        whole = False
    if not whole:
        return "incomplete"
    paths = frame_files(root, ids, index.kinds)
    now = describe_all(paths, index.files)
    changed = differences(index.files, now)
    if changed:
        return f"{paths[changed[0]]} has changed"
    if now != index.files:
        index.model_copy(update={"files": now}).write(folder / INDEX)
    return None
