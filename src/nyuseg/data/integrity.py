"""Is a data folder whole? A cheap check before training and a thorough one on request.

Both look at the competition's layout (see `nyuseg.data.frames`) and, where it exists, at
`test_label/NNNNNN.png`: the labels of the test images, kept outside `test/` so that nothing that
predicts can see them. They report every fault they find and change nothing.
"""

import csv
import hashlib
import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nyuseg.data import frames
from nyuseg.data.classes import VOID
from nyuseg.data.listing import Fault, list_files, refuse
from nyuseg.data.picture import JPEG, PNG, read_header
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import id_fault
from nyuseg.utils.progress import progress

TEST_LABELS = "test_label"
SPLITS = tuple(frames.KINDS)

_EXPECTED = {"image": "8-bit RGB", "depth": "16-bit grey", "label": "8-bit grey or palette"}
_FEW = [f"{bits}-bit {colour}" for bits in (1, 2, 4, 8) for colour in ("grey", "palette")]
_ACCEPTED = {
    "image": {*_FEW, "8-bit RGB", "8-bit RGBA", "8-bit grey with alpha"},
    "depth": {"16-bit grey"},
    "label": {*_FEW, "16-bit grey"},
}
_FORMATS = {"image": (PNG, JPEG), "depth": (PNG,), "label": (PNG,)}
# What OpenCV reads at most: pixels on a side, and in all.
_LONGEST, _MOST_PIXELS = 2**20, 2**30
_READERS = {"image": frames.read_image, "depth": frames.read_depth, "label": frames.read_label}

# Per split: per kind: per image id: the file.
Listing = dict[str, dict[str, dict[str, Path]]]


def quick_check(root: Path, splits: Sequence[str] = SPLITS) -> list[Fault]:
    """Check names, headers and scenes.csv below `root`; returns faults sorted by path.

    Reads the first bytes of each file. Finds: missing partners, files that are no frames, two of
    one id, what is neither PNG nor (an image) JPEG, wrong bit depth or channels, sizes that cannot
    be or differ inside a triple, scenes on both sides of train and test, a scenes.csv that cannot
    be used. The test split may be absent, unless it is the only one of `splits`; train may not.
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
        what = _wrong_pixels(kind, path)
        if not what and kind == "image":
            first = seen.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
            what = f"same content as {first}" if first != path else ""
        if not what and kind == "label":
            known = labelled.get(path.parent) or (frames.read_label(path) != VOID).any()
            labelled[path.parent] = bool(known)
        if what:
            faults.append(Fault(path, what))
    what = f"{VOID} (void) at every pixel of every label"
    faults += [Fault(folder, what) for folder, known in labelled.items() if not known]
    return _in_order(faults)


def require_clean(root: Path, splits: Sequence[str] = SPLITS, depth: bool = True) -> None:
    """Raise UserError, one line with the first fault of `quick_check` that stands in the way.

    Of train and test, test is only looked at: it stops what predicts, not training. What stops
    nothing is printed in one line: faults of test, a scene in train and in test (no fold is touched
    by it), a text among the frames. depth: whether any is needed; what predicts without it does not
    look at it, since on Kaggle nobody can move it away.
    """
    faults = quick_check(root, splits)
    if not depth and "train" not in splits:
        faults = [fault for fault in faults if not _is_of_depth(fault)]
    if "train" in splits:
        spared = [root / "test", root / TEST_LABELS]
        faults = [
            replace(fault, stops=fault.stops and not {*fault.path.parents} & {*spared})
            for fault in faults
        ]
    command = f"run 'python src/prepare_data.py check --input {shlex.quote(str(root))}'"
    first = next((fault for fault in faults if fault.stops), None)
    if not depth and first and _is_of_depth(first):
        command += "; nothing here needs depth: move the folder depth/ away to do without"
    refuse(faults, command)


def frame_sizes(root: Path, split: str, kind: str = "image") -> dict[str, tuple[int, int]]:
    """The height and width of each frame of a split, by id, from the headers of one kind."""
    files, _ = list_files(root / split / kind)
    return {name: _check_header(path, kind)[0][::-1] for name, path in files.items()}


def count_images(root: Path) -> str:
    """How many images a folder has, in words; of a folder called TEST there are none."""
    train, test = (len(list_files(root / split / "image")[0]) for split in SPLITS)
    return f"{train} training images, {test or 'no'} test images"


def _is_of_depth(fault: Fault) -> bool:
    return "depth" in (fault.path.name, fault.path.parent.name)


def _in_order(faults: list[Fault]) -> list[Fault]:
    return sorted(faults, key=lambda fault: fault.path)


def _folders(root: Path, splits: Sequence[str]) -> dict[str, dict[str, Path]]:
    """The folder of each kind of each split, without test when it is one of two and not there.

    Labels of the test images count only when both splits are asked for: what predicts asks for
    test alone and never looks at them.
    """
    folders = {split: {k: root / split / k for k in frames.KINDS[split]} for split in splits}
    if len(folders) > 1 and (root / TEST_LABELS).is_dir():
        folders["test"]["label"] = root / TEST_LABELS
    elif len(folders) > 1 and not (root / "test").is_dir():
        del folders["test"]
    return folders


def _check_headers(root: Path, splits: Sequence[str]) -> tuple[list[Fault], list[tuple[str, Path]]]:
    """Faults of the quick check, and the (kind, file) pairs whose header is as expected."""
    listing: Listing = defaultdict(dict)
    faults: list[Fault] = []
    sound: list[tuple[str, Path]] = []
    for split, folders in _folders(root, splits).items():
        kinds = listing[split]
        for kind, folder in folders.items():
            kinds[kind], strange = list_files(folder)
            faults += strange
        if not kinds["depth"] and not any(f.path.parent == folders["depth"] for f in faults):
            del kinds["depth"]  # Data without any depth is RGB alone, and whole.
        if not kinds["image"]:
            what = "no PNG or JPEG images; put the data there"
            faults.append(Fault(root / split / "image", what))
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
            path = frames.png_path(root, split, kind, image_id)
            if (split, kind) == ("test", "label"):
                path = root / TEST_LABELS / path.name
            faults.append(Fault(path, f"missing; only {' and '.join(present)} of this id found"))
    return faults


def _check_header(path: Path, kind: str) -> tuple[tuple[int, int], str]:
    """(width, height) of a file and what is wrong with its header, '' when nothing is."""
    try:
        with path.open("rb") as file:
            header, empty = read_header(file), not file.tell()
    except OSError as error:
        return (0, 0), f"cannot be read ({error.strerror})"
    if header is None:
        names = " or ".join(_FORMATS[kind])
        return (0, 0), "empty file; copy it again" if empty else f"not a {names} file"
    if header.format not in _FORMATS[kind]:
        return (0, 0), f"a JPEG, which alters numbers; {kind} must be a PNG file"
    if header.pixels not in _ACCEPTED[kind]:
        return (0, 0), f"expected {_EXPECTED[kind]}, found {header.pixels}"
    width, height = header.width, header.height
    if not 0 < width <= _LONGEST or not 0 < height <= _LONGEST or width * height > _MOST_PIXELS:
        why = "that cannot be read; the header is damaged, copy the file again"
        return (0, 0), f"size {width}x{height}: {why}"
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
    # What predicts needs no scenes.
    if "train" not in listing or not path.exists():
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
    # An empty scene is as good as none: it must not join images of unknown scenes.
    scene_of = {row["image_id"]: row["scene"] for row in rows if row["scene"]}
    train = listing["train"]["image"]
    counts = Counter(row["image_id"] for row in rows)
    twice = [(name, n) for name, n in counts.items() if n > 1]
    faults = [Fault(path, f"image_id {name} appears {n} times", name in train) for name, n in twice]
    lost = [image_id for image_id in train if image_id not in scene_of]
    if lost:
        what = f"no scene for {len(lost)} train images, the first is {lost[0]}"
        faults.append(Fault(path, what))
    return faults + _shared_scenes(path, scene_of, listing)


def _shared_scenes(path: Path, scene_of: dict[str, str], listing: Listing) -> list[Fault]:
    sides: dict[str, dict[str, str]] = defaultdict(dict)
    for split, kinds in listing.items():
        for image_id in kinds["image"]:
            if image_id in scene_of:
                sides[scene_of[image_id]].setdefault(split, image_id)
    what = "scene {} is both in train ({}) and in test ({})"
    return [
        Fault(path, what.format(scene, ids["train"], ids["test"]), stops=False)
        for scene, ids in sorted(sides.items())
        if len(ids) > 1
    ]


def _wrong_pixels(kind: str, path: Path) -> str:
    """What is wrong with the pixels of one file, '' when nothing is."""
    try:
        pixels = _READERS[kind](path)
    except UserError as error:
        return str(error).removeprefix(f"{path}: ")
    if kind == "depth" and not pixels.any():
        return "zero (missing) at every pixel"
    return ""
