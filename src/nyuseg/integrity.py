"""Is a data folder whole? A cheap check before training and a thorough one on request.

Both look at the competition's layout (see `nyuseg.frames`) and, where it exists, at
`test_label/NNNNNN.png`: the labels of the test images, kept outside `test/` so that nothing that
predicts can see them. They report every fault they find and change nothing.
"""

import csv
import hashlib
import shlex
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nyuseg import frames
from nyuseg.classes import VOID
from nyuseg.errors import UserError
from nyuseg.files import id_fault
from nyuseg.progress import progress

TEST_LABELS = "test_label"
SPLITS = tuple(frames.KINDS)

# The first 33 bytes of a PNG file: signature, then the chunk IHDR (W3C PNG specification, 5.2
# and 11.2.2). Big endian: length, type, width, height, bit depth, colour type, three more, CRC.
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">8sI4sIIBB3xI")
_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
_EXPECTED = {"image": "8-bit RGB", "depth": "16-bit grey", "label": "8-bit grey or palette"}
_FEW = [f"{bits}-bit {colour}" for bits in (1, 2, 4, 8) for colour in ("grey", "palette")]
_ACCEPTED = {
    "image": {*_FEW, "8-bit RGB", "8-bit RGBA", "8-bit grey with alpha"},
    "depth": {"16-bit grey"},
    "label": {*_FEW, "16-bit grey"},
}
_READERS = {"image": frames.read_image, "depth": frames.read_depth, "label": frames.read_label}

# Per split: per kind: per image id: the file.
Listing = dict[str, dict[str, dict[str, Path]]]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: the file (or folder) and what is wrong with it, one line."""

    path: Path
    what: str

    def __str__(self) -> str:
        line = f"{self.path}: {self.what}"
        # A name can hold what breaks a line or what no terminal shows.
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def quick_check(root: Path, splits: Sequence[str] = SPLITS) -> list[Fault]:
    """Check names, PNG headers and scenes.csv below `root`; returns faults sorted by path.

    Reads 33 bytes of each file. Finds: missing partners, files that are not PNG, wrong bit depth
    or channels, sizes that differ inside a triple, scenes on both sides of train and test,
    a scenes.csv that cannot be used. The test split may be absent, unless it is the only one of
    `splits`; train may not.
    """
    return _in_order(_check_headers(root, splits)[0])


def full_check(root: Path) -> list[Fault]:
    """`quick_check`, then read every pixel once; returns faults sorted by path.

    Finds as well: truncated or damaged files, labels outside 0..12 and 255, labels that are all
    void, depth that is zero everywhere, image files with the same content (within and across train
    and test). Files whose header is already at fault are not read.
    """
    faults, sound = _check_headers(root, SPLITS)
    seen: dict[str, Path] = {}
    labelled: dict[Path, bool] = {}
    for kind, path in progress(sound, "check", len(sound), "file"):
        data = path.read_bytes()
        what = _damage(data) or _wrong_pixels(kind, path)
        if not what and kind == "image":
            first = seen.setdefault(hashlib.sha256(data).hexdigest(), path)
            what = f"same content as {first}" if first != path else ""
        if not what and kind == "label":
            known = labelled.get(path.parent) or (frames.read_label(path) != VOID).any()
            labelled[path.parent] = bool(known)
        if what:
            faults.append(Fault(path, what))
    what = f"{VOID} (void) at every pixel of every label"
    faults += [Fault(folder, what) for folder, known in labelled.items() if not known]
    return _in_order(faults)


def require_clean(root: Path, splits: Sequence[str] = SPLITS) -> None:
    """Raise UserError, one line with the first fault of `quick_check`, when there is any."""
    faults = quick_check(root, splits)
    if faults:
        more = f"and {len(faults) - 1} more; " if len(faults) > 1 else ""
        command = f"python src/prepare_data.py check --input {shlex.quote(str(root))}"
        raise UserError(f"{faults[0]} ({more}run '{command}')")


def image_sizes(root: Path, split: str) -> set[tuple[int, int]]:
    """The different (width, height) of a split's images, from their headers."""
    return {_check_header(path, "image")[0] for path in _pngs(root / split / "image").values()}


def _in_order(faults: list[Fault]) -> list[Fault]:
    return sorted(faults, key=lambda fault: fault.path)


def _list_files(root: Path, splits: Sequence[str]) -> Listing:
    """All PNG files of the splits, without test when it is one of two and has no folder.

    Labels of the test images count only when both splits are asked for: what predicts asks for
    test alone and never looks at them.
    """
    folders = {split: {k: root / split / k for k in frames.KINDS[split]} for split in splits}
    if len(folders) > 1 and (root / TEST_LABELS).is_dir():
        folders["test"]["label"] = root / TEST_LABELS
    elif len(folders) > 1 and not (root / "test").is_dir():
        del folders["test"]
    listing = {
        split: {kind: _pngs(folder) for kind, folder in kinds.items()}
        for split, kinds in folders.items()
    }
    for kinds in listing.values():  # Data without any depth is RGB alone, and whole.
        if not kinds["depth"]:
            del kinds["depth"]
    return listing


def _pngs(folder: Path) -> dict[str, Path]:
    # A name with a dot in front is a file being written (see files.atomic_path).
    paths = sorted(path for path in folder.glob("*.png") if not path.name.startswith("."))
    return {path.stem: path for path in paths}


def _check_headers(root: Path, splits: Sequence[str]) -> tuple[list[Fault], list[tuple[str, Path]]]:
    """Faults of the quick check, and the (kind, file) pairs whose header is as expected."""
    listing = _list_files(root, splits)
    faults: list[Fault] = []
    sound: list[tuple[str, Path]] = []
    for split, kinds in listing.items():
        if not kinds["image"]:
            faults.append(Fault(root / split / "image", "no PNG images; put the data there"))
            continue
        named = ((path, id_fault(image_id)) for image_id, path in kinds["image"].items())
        faults += [Fault(path, what) for path, what in named if what]
        faults += _missing_partners(root, split, kinds)
        sizes: dict[str, dict[Path, tuple[int, int]]] = defaultdict(dict)
        for kind, paths in kinds.items():
            for image_id, path in paths.items():
                size, what = _check_header(path, kind)
                if what:
                    faults.append(Fault(path, what))
                else:
                    sizes[image_id][path] = size
                    sound.append((kind, path))
        for triple in sizes.values():
            faults += _odd_sizes(triple)
    return faults + _check_scenes(root, listing), sound


def _missing_partners(root: Path, split: str, kinds: dict[str, dict[str, Path]]) -> list[Fault]:
    """One fault per partner an image lacks; one per id without an image, whatever it has."""
    faults = []
    for image_id in sorted(set().union(*kinds.values())):
        present = [kind for kind in kinds if image_id in kinds[kind]]
        absent = [kind for kind in kinds if kind not in present]
        if "image" in absent:
            absent = ["image"]
        for kind in absent:
            path = frames.frame_path(root, split, kind, image_id)
            if (split, kind) == ("test", "label"):
                path = root / TEST_LABELS / path.name
            faults.append(Fault(path, f"missing; only {' and '.join(present)} of this id found"))
    return faults


def _check_header(path: Path, kind: str) -> tuple[tuple[int, int], str]:
    """(width, height) of a PNG file and what is wrong with its header, '' when nothing is."""
    try:
        with path.open("rb") as file:
            data = file.read(_HEADER.size)
    except OSError as error:
        return (0, 0), f"cannot be read ({error.strerror})"
    if not data:
        return (0, 0), "empty file; copy it again"
    if len(data) < _HEADER.size or not data.startswith(_SIGNATURE) or data[12:16] != b"IHDR":
        return (0, 0), "not a PNG file"
    _, _, _, width, height, bits, colour, _ = _HEADER.unpack(data)
    found = f"{bits}-bit {_COLOURS.get(colour, f'colour type {colour}')}"
    if found not in _ACCEPTED[kind]:
        return (0, 0), f"expected {_EXPECTED[kind]}, found {found}"
    return (width, height), ""


def _odd_sizes(sizes: dict[Path, tuple[int, int]]) -> list[Fault]:
    """Faults of the files of one id whose size is not that of most; the image's wins a tie."""
    usual = Counter(sizes.values()).most_common(1)[0][0]
    what = "size {}x{} differs from its partners' {}x{}"
    return [
        Fault(path, what.format(*size, *usual)) for path, size in sizes.items() if size != usual
    ]


def _check_scenes(root: Path, listing: Listing) -> list[Fault]:
    path = root / "scenes.csv"
    if not path.exists():
        return []
    try:
        # The signature that some spreadsheets put in front is not part of the first name.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        return [Fault(path, f"cannot be read as CSV ({error})")]
    absent = {"image_id", "scene", "scene_type"} - set(reader.fieldnames or ())
    if absent:
        return [Fault(path, f"no column {', '.join(sorted(absent))}")]
    if any(None in row for row in rows):
        return [Fault(path, "a row has more columns than the first line")]
    return [Fault(path, what) for what in _scene_faults(rows, listing)]


def _scene_faults(rows: list[dict[str, str]], listing: Listing) -> list[str]:
    counts = Counter(row["image_id"] for row in rows)
    what = [f"image_id {name} appears {n} times" for name, n in counts.items() if n > 1]
    # An empty scene is as good as none: it must not join images of unknown scenes.
    scene_of = {row["image_id"]: row["scene"] for row in rows if row["scene"]}
    train = listing.get("train", {"image": {}})["image"]
    lost = [image_id for image_id in train if image_id not in scene_of]
    if lost:
        what.append(f"no scene for {len(lost)} train images, the first is {lost[0]}")
    sides: dict[str, dict[str, str]] = defaultdict(dict)
    for split, kinds in listing.items():
        for image_id in kinds["image"]:
            if image_id in scene_of:
                sides[scene_of[image_id]].setdefault(split, image_id)
    what += [
        f"scene {scene} is both in train ({ids['train']}) and in test ({ids['test']})"
        for scene, ids in sorted(sides.items())
        if len(ids) > 1
    ]
    return what


def _damage(data: bytes) -> str:
    """What is wrong with the chunks of a PNG file, '' when all are whole up to IEND.

    Some versions of the decoder return a partly decoded picture for a truncated file without any
    error, so the chunks' lengths and checksums decide (W3C PNG specification, 5.3).
    """
    at, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        # A chunk is its data's length, 4 bytes of type, the data, 4 bytes of CRC.
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            return f"truncated: {len(data)} bytes, at least {end + 4} expected; copy it again"
        if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return f"damaged near byte {at}; copy it again"
        at, kind = end + 4, data[at + 4 : at + 8]
    return ""


def _wrong_pixels(kind: str, path: Path) -> str:
    """What is wrong with the pixels of one file, '' when nothing is."""
    try:
        pixels = _READERS[kind](path)
    except UserError as error:
        return str(error).removeprefix(f"{path}: ")
    if kind == "depth" and not pixels.any():
        return "zero (missing) at every pixel"
    return ""
