"""The official NYUv2 file, `nyu_depth_v2_labeled.mat`, into the competition's layout.

Source: https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html. The file is HDF5 (MATLAB v7.3); HDF5
shows MATLAB's axes in reverse, so a picture is stored as [W,H]. Datasets used, N = 1449:

    images     uint8   [N,3,640,480]   RGB
    depths     float32 [N,640,480]     metres, holes filled in; rawDepths: with the holes
    labels     uint16  [N,640,480]     0 = unlabelled, 1..894 = class
    scenes     object  [1,N]           references to uint16 characters
"""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from nyuseg.data.classes import VOID
from nyuseg.data.folds import NYUV2, NYUV2_SCENES
from nyuseg.data.frames import png_path, write_png
from nyuseg.data.integrity import TEST_LABELS
from nyuseg.utils.errors import UserError
from nyuseg.utils.progress import progress
from nyuseg.utils.records import Record

CLASSES = NYUV2 / "classes.csv"

# HDF5 unpacks whole chunks, and a chunk may hold parts of many images: without a cache that holds
# a layer of them, each image read would unpack all of them again. Per dataset; three are read.
_CACHE_BYTES = 128 * 2**20
_CACHE_SLOTS = 10_007


def convert_mat(mat: Path, root: Path, raw_depth: bool = False, table: Path = NYUV2_SCENES) -> None:
    """Write the images, depth maps and labels of the official file `mat` below `root`.

    Writes train/{image,depth,label}/NNNNNN.png, test/{image,depth}/NNNNNN.png and, apart from
    what predicts, test_label/NNNNNN.png. The id is the zero-based index in `mat`; split and scene
    of each come from `table` (columns image_id, split, scene). Depth: uint16 mm, 0 = missing;
    in-filled, or with the sensor's holes when `raw_depth`. Label: uint8 0..12, 255 = void.

    Images whose files are all there are skipped, so that an interrupted run goes on where it was.
    Raises UserError when `mat` is absent, broken or not that file, or when `root` holds the other
    kind of depth.
    """
    depth_name = "rawDepths" if raw_depth else "depths"
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with _open(mat) as data:
        with _reading(mat):
            _verify(mat, data, rows, depth_name)
        _remember_depth(root, depth_name)
        todo = [row for row in rows if not all(path.exists() for path in _targets(root, row))]
        print(f"{mat}: {len(rows)} images, {len(rows) - len(todo)} of them already in {root}")
        classes = _class_table()
        # Opened once: a dataset's cache goes when the dataset is closed.
        sources = [data[name] for name in ("images", depth_name, "labels")]
        for row in progress(todo, "convert", len(todo)):
            with _reading(mat):
                # [C,W,H] and [W,H] become [H,W,C] and [H,W].
                image, depth, labels = (source[int(row["image_id"])].T for source in sources)
            if labels.max() >= len(classes):
                raise UserError(
                    f"{mat}: image {row['image_id']} has label {labels.max()}, above "
                    f"{len(classes) - 1}; not the official file, download it again"
                )
            pixels = (image, from_metres(depth), classes[labels])
            for path, array in zip(_targets(root, row), pixels, strict=True):
                write_png(path, array)


def from_metres(metres: np.ndarray) -> np.ndarray:
    """Depth in metres, float of any shape, as rounded uint16 millimetres.

    0 = missing: what is not finite or not above zero. Clipped to 65535.
    """
    valid = np.isfinite(metres) & (metres > 0)
    millimetres = np.rint(np.where(valid, metres, 0).astype(np.float64) * 1000)
    return np.minimum(millimetres, 65535).astype(np.uint16)


def _targets(root: Path, row: dict[str, str]) -> tuple[Path, Path, Path]:
    """The files of one image in the order they are written: image, depth, label."""
    split, image_id = row["split"], row["image_id"]
    label = png_path(root, split, "label", image_id)
    if split == "test":
        label = root / TEST_LABELS / label.name
    return (
        png_path(root, split, "image", image_id),
        png_path(root, split, "depth", image_id),
        label,
    )


def _class_table() -> np.ndarray:
    """Label of the file -> class of the competition, uint8 [895]."""
    with CLASSES.open(newline="", encoding="utf-8") as file:
        classes = [int(row["nyu13_id"]) for row in csv.DictReader(file)]
    return np.array([VOID, *classes], np.uint8)


@contextmanager
def _reading(mat: Path) -> Iterator[None]:
    """Turn what h5py raises on broken content into a UserError. Keep writing out of it."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise UserError(
            f"{mat}: truncated or not the official HDF5 file ({error}); download it again"
        ) from None


def _open(mat: Path) -> h5py.File:
    if not mat.is_file():
        raise UserError(f"{mat}: no such file; download nyu_depth_v2_labeled.mat (2.8 GB)")
    with _reading(mat):
        return h5py.File(mat, "r", rdcc_nbytes=_CACHE_BYTES, rdcc_nslots=_CACHE_SLOTS)


def _verify(mat: Path, data: h5py.File, rows: list[dict[str, str]], depth_name: str) -> None:
    """Raise UserError unless types, shapes and scene names are those of the official file."""
    images = data.get("images")
    # The size is taken from the file; 640x480 only completes the message.
    size = images.shape[2:] if len(getattr(images, "shape", ())) == 4 else (640, 480)
    expected = {
        "images": f"uint8 {(len(rows), 3, *size)}",
        depth_name: f"float32 {(len(rows), *size)}",
        "labels": f"uint16 {(len(rows), *size)}",
        "scenes": f"object {(1, len(rows))}",
    }
    for name, kind in expected.items():
        node = data.get(name)
        found = f"{node.dtype} {node.shape}" if isinstance(node, h5py.Dataset) else "none"
        if found != kind:
            raise UserError(
                f"{mat}: dataset '{name}' should be {kind}, found {found}; "
                "not the official labelled file"
            )
    for row in rows:
        characters = data[data["scenes"][0, int(row["image_id"])]][()]
        scene = "".join(map(chr, characters.ravel()))
        if scene != row["scene"]:
            raise UserError(
                f"{mat}: image {row['image_id']} is of scene '{scene}', expected "
                f"'{row['scene']}'; not the official labelled file"
            )


class DepthSource(Record):
    """depth_source.json: which of the file's two kinds of depth a folder holds."""

    dataset: str


def _remember_depth(root: Path, depth_name: str) -> None:
    """Note which depth `root` holds, so that a later run cannot mix the two kinds."""
    note = root / "depth_source.json"
    if not note.exists():
        DepthSource(dataset=depth_name).write(note)
    elif DepthSource.read(note).dataset != depth_name:
        raise UserError(f"{note}: holds other depth than '{depth_name}'; choose another folder")
