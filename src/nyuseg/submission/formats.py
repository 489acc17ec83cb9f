"""Submissions: masks written in the leaderboard's formats, and read back."""

import csv
import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import numpy as np

from nyuseg.config.prediction import Submission
from nyuseg.data.classes import NUM_CLASSES
from nyuseg.data.frames import encode_png
from nyuseg.data.integrity import frame_sizes
from nyuseg.data.png import decode_numbers
from nyuseg.submission.rle import decode_mask, encode_mask
from nyuseg.utils.arrays import ArrayFile, map_array, read_entries
from nyuseg.utils.errors import UserError

FILES = {"npy": "submission.npy", "rle": "submission.csv", "png": "submission.zip"}
HEADER = ["ImageId_ClassId", "EncodedPixels"]
# A class of a noisy mask can take more text than the module's usual limit of a field.
csv.field_size_limit(2**31 - 1)
Sizes = dict[str, tuple[int, int]]


def parse_formats(text: str) -> list[str]:
    """Turn 'npy,rle,png' into a list. Raises UserError for another name."""
    formats = [part.strip() for part in text.split(",")]
    for name in formats:
        if name not in FILES:
            raise UserError(f"--format {text}: '{name}' is none of {', '.join(FILES)}")
    return formats


def usable_formats(root: Path, formats: list[str], asked: bool = False) -> list[str]:
    """The formats that the test images of `root` allow, from their headers.

    submission.npy needs one size: when they differ it is left out, said aloud, and with nothing
    left `rle` takes its place. asked: the user named the formats; then it is a UserError instead.
    """
    if "npy" not in formats or len(sizes := {*frame_sizes(root, "test").values()}) <= 1:
        return formats
    found = ", ".join(f"{height}x{width}" for height, width in sorted(sizes)[:3])
    what = f"{root / 'test'}: images of {len(sizes)} sizes ({found}, ...)"
    if asked:
        raise UserError(f"{what}: {FILES['npy']} needs one size; use --format rle,png")
    print(f"!! {what}: {FILES['npy']} is left out !!", flush=True)
    return [name for name in formats if name != "npy"] or ["rle"]


def order_notice(ids: Sequence[str]) -> str | None:
    """A line that says how sorted `ids` lie in submission.npy, which names none, where somebody who
    counts would expect another order: 1, 10, 2. None elsewhere."""
    if not all(map(str.isdecimal, ids)) or list(ids) == sorted(ids, key=int):
        return None
    shown = ", ".join(ids[:3])
    return f"{FILES['npy']} holds the images in the order of their names as text: {shown}, ..."


class Writer(Protocol):
    """Takes the masks of a submission, one after the other."""

    def add(self, image_id: str, mask: np.ndarray, /) -> None: ...


class RleWriter(AbstractContextManager["RleWriter"]):
    """submission.csv: ImageId_ClassId,EncodedPixels; 13 rows an image."""

    def __init__(self, folder: Path, options: Submission) -> None:
        self.options = options
        self.file = (folder / FILES["rle"]).open("w", newline="", encoding="utf-8")
        self.writer = csv.writer(self.file, lineterminator="\n")
        self.writer.writerow(HEADER)

    def add(self, image_id: str, mask: np.ndarray) -> None:
        texts = encode_mask(mask, **self.options.model_dump())
        self.writer.writerows((f"{image_id}_{k}", text) for k, text in enumerate(texts))

    def __exit__(self, *exception: object) -> None:
        self.file.close()


class PngWriter(AbstractContextManager["PngWriter"]):
    """submission.zip: <id>.png, uint8, each of its own size."""

    def __init__(self, folder: Path) -> None:
        # PNG is compressed already.
        self.archive = zipfile.ZipFile(folder / FILES["png"], "w", zipfile.ZIP_STORED)

    def add(self, image_id: str, mask: np.ndarray) -> None:
        # A fixed date: the same masks give the same archive.
        entry = zipfile.ZipInfo(f"{image_id}.png", (1980, 1, 1, 0, 0, 0))
        self.archive.writestr(entry, encode_png(mask))

    def __exit__(self, *exception: object) -> None:
        self.archive.close()


def make_writer(
    name: str, folder: Path, count: int, options: Submission
) -> AbstractContextManager[Writer]:
    """The writer of a format, to be used as a context; `count` is the number of images."""
    if name == "npy":
        return ArrayFile(folder / FILES["npy"], count, np.uint8)
    return RleWriter(folder, options) if name == "rle" else PngWriter(folder)


def read_masks(
    path: Path, sizes: Sizes, options: Submission | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Read a submission file back: (id, mask uint8 [H,W]) for each image, in the file's order.

    sizes: height and width of every expected image, in the order of sorted ids; they give the
    .npy file its ids and the .csv file its shapes. Raises UserError, naming the file, for another
    set of images or a mask of another size.
    """
    readers = {".npy": _read_npy, ".csv": _read_rle, ".zip": _read_png}
    if path.suffix not in readers:
        raise UserError(f"{path}: expected a .npy, .csv or .zip file")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    seen = set()
    for image_id, mask in readers[path.suffix](path, sizes, options or Submission()):
        if image_id not in sizes or image_id in seen:
            what = "twice" if image_id in seen else "but it is not expected"
            raise UserError(f"{path}: image {image_id} is there {what}")
        if mask.shape != sizes[image_id]:
            raise UserError(f"{path}: image {image_id} is {mask.shape}, not {sizes[image_id]}")
        seen.add(image_id)
        yield image_id, mask
    missing = sorted(set(sizes) - seen)
    if missing:
        raise UserError(f"{path}: no mask for image {missing[0]} ({len(missing)} missing)")


def _read_npy(path: Path, sizes: Sizes, _: Submission) -> Iterator[tuple[str, np.ndarray]]:
    masks = map_array(path)
    if not np.issubdtype(masks.dtype, np.integer):
        raise UserError(f"{path}: not an array of whole numbers")
    if masks.ndim != 3 or len(masks) != len(sizes):
        raise UserError(f"{path}: holds {masks.shape}, expected [{len(sizes)}, H, W]")
    for image_id, mask in zip(sorted(sizes), read_entries(path), strict=True):
        if mask.min(initial=0) < 0 or mask.max(initial=0) > 255:
            raise UserError(f"{path}: image {image_id} holds values outside 0..255")
        yield image_id, mask.astype(np.uint8)


def _read_rle(path: Path, sizes: Sizes, options: Submission) -> Iterator[tuple[str, np.ndarray]]:
    # The signature that some spreadsheets put in front is not part of the first name.
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = (row for row in csv.reader(file) if row)
        if next(rows, None) != HEADER:
            raise UserError(f"{path}: the first line must be {','.join(HEADER)}")
        for first in rows:
            block = [first, *(next(rows, []) for _ in range(NUM_CLASSES - 1))]
            image_id = first[0].rpartition("_")[0]
            if [row[:1] for row in block] != [[f"{image_id}_{k}"] for k in range(NUM_CLASSES)]:
                raise UserError(f"{path}: the rows of image '{image_id}' are not classes 0..12")
            if image_id not in sizes:
                raise UserError(f"{path}: image {image_id} is not expected")
            texts = [row[1] if len(row) > 1 else "" for row in block]
            try:
                yield image_id, decode_mask(texts, sizes[image_id], **options.model_dump())
            except UserError as error:
                raise UserError(f"{path}: image {image_id}: {error}") from None


def _read_png(path: Path, _: Sizes, __: Submission) -> Iterator[tuple[str, np.ndarray]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                mask = decode_numbers(archive.read(name))
                if mask is None:
                    raise UserError(f"{path}: {name} cannot be decoded")
                yield name.removesuffix(".png"), mask
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{path}: {error}") from None


def digest(mask: np.ndarray) -> bytes:
    """A fingerprint of a mask's shape and pixels, to compare without keeping the mask."""
    return hashlib.sha256(repr(mask.shape).encode() + mask.tobytes()).digest()


def verify(path: Path, sizes: Sizes, digests: dict[str, bytes], options: Submission) -> None:
    """Decode a written file and compare each mask with the one that was meant.

    Raises UserError, naming file and image, for the first that differs.
    """
    for image_id, mask in read_masks(path, sizes, options):
        if digest(mask) != digests[image_id]:
            raise UserError(f"{path}: image {image_id} does not decode to the predicted mask")
