"""Each fault is made alone in a clean folder and must be reported once, with its file's name."""

import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from nyuseg.data.folds import read_scenes
from nyuseg.data.frames import read_image, write_png
from nyuseg.data.integrity import Fault, full_check, quick_check, require_clean
from nyuseg.utils.errors import UserError

HEIGHT, WIDTH = 12, 16
TRAIN = ("000001", "000002", "000003")
TEST = ("000004", "000005")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clean folder with 3 train and 2 test images, test labels and scenes."""
    rng = np.random.default_rng(0)
    for image_id in (*TRAIN, *TEST):
        split = "train" if image_id in TRAIN else "test"
        label_folder = "train/label" if split == "train" else "test_label"
        shape = (HEIGHT, WIDTH)
        image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        depth = rng.integers(500, 9000, shape, dtype=np.uint16)
        label = rng.choice([*range(13), 255], shape).astype(np.uint8)
        write_png(tmp_path / f"{split}/image/{image_id}.png", image)
        write_png(tmp_path / f"{split}/depth/{image_id}.png", depth)
        write_png(tmp_path / f"{label_folder}/{image_id}.png", label)
    rows = [f"{image_id},scene_{image_id},office\n" for image_id in (*TRAIN, *TEST)]
    (tmp_path / "scenes.csv").write_text("image_id,scene,scene_type\n" + "".join(rows))
    return tmp_path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_palette(path: Path) -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 3, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(HEIGHT * (WIDTH + 1))))
    palette = chunk(b"PLTE", bytes(39))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + palette + pixels + chunk(b"IEND", b""))


def write_jpeg(path: Path) -> None:
    path.write_bytes(cv2.imencode(".jpg", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes())


def empty(path: Path) -> None:
    path.write_bytes(b"")


def pixels(dtype: type, *shape: int) -> Callable[[Path], None]:
    return lambda path: write_png(path, np.ones(shape, dtype))


def rgba(path: Path) -> None:
    path.write_bytes(cv2.imencode(".png", np.ones((HEIGHT, WIDTH, 4), np.uint8))[1].tobytes())


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


IMAGE, DEPTH, LABEL = (f"train/{kind}/000002.png" for kind in ("image", "depth", "label"))
TEST_LABEL = "test_label/000005.png"

# What is done to which file, and words of the one fault at that file.
HEADER_FAULTS = [
    *((name, Path.unlink, "missing") for name in (IMAGE, DEPTH, LABEL)),
    *((name, Path.unlink, "missing") for name in ("test/image/000005.png", TEST_LABEL)),
    *((name, empty, "empty file") for name in (IMAGE, DEPTH, LABEL, TEST_LABEL)),
    *((name, write_jpeg, "a JPEG, which alters numbers") for name in (DEPTH, LABEL)),
    (IMAGE, as_folder, "cannot be read"),
    (IMAGE, pixels(np.uint16, HEIGHT, WIDTH), "expected 8-bit RGB, found 16-bit grey"),
    (IMAGE, pixels(np.uint16, HEIGHT, WIDTH, 3), "expected 8-bit RGB, found 16-bit RGB"),
    (DEPTH, pixels(np.uint8, HEIGHT, WIDTH), "expected 16-bit grey, found 8-bit grey"),
    (DEPTH, pixels(np.uint8, HEIGHT, WIDTH, 3), "expected 16-bit grey, found 8-bit RGB"),
    (LABEL, pixels(np.uint8, HEIGHT, WIDTH, 3), "expected 8-bit grey or palette, found 8-bit RGB"),
    (LABEL, rgba, "expected 8-bit grey or palette, found 8-bit RGBA"),
    (DEPTH, write_palette, "expected 16-bit grey, found 8-bit palette"),
    (IMAGE, pixels(np.uint8, HEIGHT, WIDTH + 1, 3), "size 17x12 differs from its partners' 16x12"),
    (DEPTH, pixels(np.uint16, HEIGHT - 1, WIDTH), "size 16x11 differs from its partners' 16x12"),
    (LABEL, pixels(np.uint8, WIDTH, HEIGHT), "size 12x16 differs from its partners' 16x12"),
    (TEST_LABEL, pixels(np.uint8, 1, 1), "size 1x1 differs from its partners' 16x12"),
]


def test_clean_folder(root: Path) -> None:
    assert quick_check(root) == []
    assert full_check(root) == []
    require_clean(root)


@pytest.mark.parametrize("check", [quick_check, full_check])
@pytest.mark.parametrize(("name", "spoil", "words"), HEADER_FAULTS)
def test_header_faults(
    root: Path,
    name: str,
    spoil: Callable[[Path], None],
    words: str,
    check: Callable[[Path], list[Fault]],
) -> None:
    spoil(root / name)
    one_fault(check(root), root / name, words)


@pytest.mark.parametrize("name", ["train/depth/000009.png", "train/label/000009.png"])
def test_file_without_its_image(root: Path, name: str) -> None:
    shutil.copy(root / name.replace("9", "1"), root / name)
    kind = Path(name).parent.name
    one_fault(quick_check(root), root / "train/image/000009.png", f"missing; only {kind} of")


def test_files_being_written_are_no_partners(root: Path) -> None:
    shutil.copy(root / DEPTH, root / "train/depth/.000009.x.png")
    assert full_check(root) == []


@pytest.mark.parametrize("folder", ["train", "train/image", "test/image"])
def test_split_without_images(root: Path, folder: str) -> None:
    shutil.rmtree(root / folder)
    image_folder = root / Path(folder).parts[0] / "image"
    faults = [fault for fault in quick_check(root) if fault.path.name != "scenes.csv"]
    one_fault(faults, image_folder, "no PNG or JPEG images")


def test_test_split_may_be_absent(root: Path) -> None:
    shutil.rmtree(root / "test")
    shutil.rmtree(root / "test_label")
    (root / "scenes.csv").unlink()
    assert full_check(root) == []


def test_test_labels_may_be_absent(root: Path) -> None:
    shutil.rmtree(root / "test_label")
    assert full_check(root) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("scene_000004", "scene_000002", "scene scene_000002 is both in train (000002)"),
        ("scene,", "room,", "no column scene"),
        ("image_id,scene,scene_type\n", "", "no column image_id, scene, scene_type"),
        ("000003,", "000007,", "no scene for 1 train images, the first is 000003"),
        ("scene_000003", "", "no scene for 1 train images, the first is 000003"),
        ("000003,", "000002,", "image_id 000002 appears 2 times"),
        ("office", '"office', "cannot be read as CSV"),
        ("office", "\udcff", "cannot be read as CSV"),
    ],
)
def test_scenes_faults(root: Path, old: str, new: str, words: str) -> None:
    path = root / "scenes.csv"
    text = path.read_text().replace(old, new, 1)
    path.write_text(text, errors="surrogateescape")
    faults = [fault for fault in quick_check(root) if words in fault.what]
    one_fault(faults, path, words)
    # A train image whose row went to another id lost its scene as well.
    assert len(quick_check(root)) == (2 if "appears" in words else 1)


def test_scenes_with_a_byte_order_mark(root: Path) -> None:
    path = root / "scenes.csv"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert quick_check(root) == []


def test_scenes_with_a_column_too_many(root: Path) -> None:
    """pandas would take the first column for an index and shift the others."""
    path = root / "scenes.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(f"{row}," for row in rows)]))
    one_fault(quick_check(root), path, "a row has more columns than the first line")
    with pytest.raises(UserError, match=r"scenes\.csv: a row has more columns than the first line"):
        read_scenes(root, [*TRAIN])


def test_unreadable_scenes(root: Path) -> None:
    (root / "scenes.csv").unlink()
    (root / "scenes.csv").mkdir()
    one_fault(quick_check(root), root / "scenes.csv", "cannot be read as CSV")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def without_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-12])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def headers_only(path: Path) -> None:
    """A file whose chunks are all whole, but without pixels."""
    path.write_bytes(path.read_bytes()[:33] + chunk(b"IEND", b""))


def transparent(path: Path) -> None:
    """An RGB header is not enough: one colour of it can be transparent."""
    data, colour = path.read_bytes(), read_image(path)[3, 2].tolist()
    path.write_bytes(data[:33] + chunk(b"tRNS", struct.pack(">HHH", *colour)) + data[33:])


PIXEL_FAULTS = [
    *((name, truncated, "truncated") for name in (IMAGE, DEPTH, LABEL, TEST_LABEL)),
    (IMAGE, without_end, "truncated"),
    *((name, flipped, "damaged") for name in (IMAGE, DEPTH, LABEL)),
    (IMAGE, headers_only, "cannot be decoded"),
    (IMAGE, transparent, "transparent at 1 of its pixels"),
    (DEPTH, lambda p: write_png(p, np.zeros((HEIGHT, WIDTH), np.uint16)), "zero (missing) at"),
    (LABEL, lambda p: spoil_label(p, 13, 40, 254), "outside 0..12 and 255: 13, 40, 254"),
    (TEST_LABEL, lambda p: spoil_label(p, 13), "outside 0..12 and 255: 13"),
]


def spoil_label(path: Path, *values: int) -> None:
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[0, : len(values)] = values
    write_png(path, label)


@pytest.mark.parametrize(("name", "spoil", "words"), PIXEL_FAULTS)
def test_pixel_faults(root: Path, name: str, spoil: Callable[[Path], None], words: str) -> None:
    spoil(root / name)
    assert quick_check(root) == []
    one_fault(full_check(root), root / name, words)


@pytest.mark.parametrize("copy", ["train/image/000003.png", "test/image/000005.png"])
def test_duplicates(root: Path, copy: str) -> None:
    shutil.copy(root / "train/image/000001.png", root / copy)
    words = f"same content as {root / 'train/image/000001.png'}"
    one_fault(full_check(root), root / copy, words)


def test_a_pixel_fault_beside_a_wrong_size(root: Path) -> None:
    write_png(root / LABEL, np.full((HEIGHT, WIDTH + 1), 99, np.uint8))
    faults = full_check(root)
    assert [fault.path for fault in faults] == [root / LABEL] * 2
    assert "size 17x12" in faults[0].what
    assert "99" in faults[1].what


def test_faults_are_sorted(root: Path) -> None:
    truncated(root / "test/image/000004.png")
    (root / "train/depth/000001.png").unlink()
    empty(root / "train/image/000003.png")
    paths = [str(fault.path.relative_to(root)) for fault in full_check(root)]
    assert paths == ["test/image/000004.png", "train/depth/000001.png", "train/image/000003.png"]


def test_require_clean_is_one_line(root: Path) -> None:
    (root / LABEL).unlink()
    with pytest.raises(UserError) as caught:
        require_clean(root)
    command = f"run 'python src/prepare_data.py check --input {root}'"
    assert str(caught.value).startswith(f"{root / LABEL}: missing")
    assert str(caught.value).endswith(f"({command})")
    (root / DEPTH).unlink()
    empty(root / "train/image/000003.png")
    with pytest.raises(UserError) as caught:
        require_clean(root)
    assert str(caught.value).startswith(f"{root / DEPTH}: missing")
    assert str(caught.value).endswith(f"(and 2 more; {command})")
    assert "\n" not in str(caught.value)


def one_fault(faults: list[Fault], path: Path, words: str) -> None:
    assert [fault.path for fault in faults] == [path]
    assert words in faults[0].what
    assert str(faults[0]) == f"{path}: {faults[0].what}"
    assert "\n" not in str(faults[0])
