"""Which files are frames: found whatever their ending, and nothing left out without a word."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import prepare_data
import score
from nyuseg.config.loading import parse_config
from nyuseg.data.frame_cache import open_cache
from nyuseg.data.frames import FrameFolder, frame_path, list_ids, read_image, read_label
from nyuseg.data.integrity import count_images, full_check, quick_check, require_clean
from nyuseg.data.listing import list_files
from nyuseg.submission.formats import read_masks
from nyuseg.submission.writing import write_submission
from nyuseg.utils.errors import UserError

SIZES = [(12, 16), (13, 9), (40, 60)]


@pytest.fixture
def root(tiny_folder, tmp_path: Path) -> Path:
    """Frames 900001 to 900003 of three rooms, test frames 990001 and 990002."""
    tiny_folder(tmp_path / "data", SIZES, ["a", "b", "c"], test=[(12, 16), (9, 13)])
    return tmp_path / "data"


def jpeg(pixels: np.ndarray, turn: bool = False) -> bytes:
    """A JPEG file of RGB or grey pixels; turn: with a note to show it turned by 90 degrees."""
    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    data = cv2.imencode(".jpg", np.ascontiguousarray(ordered))[1].tobytes()
    tiff = b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    body = b"Exif\0\0" + tiff
    note = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    return data[:2] + note * turn + data[2:]


def as_jpeg(root: Path, image_id: str, name: str = "{}.jpg", turn: bool = False) -> Path:
    path = frame_path(root, "train", "image", image_id)
    data = jpeg(read_image(path), turn)
    path.unlink()
    path = path.with_name(name.format(image_id))
    path.write_bytes(data)
    return path


def capitals(root: Path) -> None:
    for path in [*root.glob("train/*/900002.png"), *root.glob("test/*/990002.png")]:
        path.rename(path.with_suffix(".PNG"))


def test_names_in_capitals_are_frames_everywhere(root: Path, tmp_path: Path) -> None:
    wanted = FrameFolder(root, "train").read("900002", ("image", "depth", "label"))
    capitals(root)
    assert full_check(root) == []
    assert list_ids(root, "train") == ["900001", "900002", "900003"]
    assert list_ids(root, "test") == ["990001", "990002"]
    assert list(list_files(root / "test/depth")[0]) == ["990001", "990002"]
    cached = open_cache(root, list_ids(root, "train"), tmp_path / "cache")
    for source in (FrameFolder(root, "train"), cached):
        found = source.read("900002", ("image", "depth", "label"))
        assert all(np.array_equal(found[kind], wanted[kind]) for kind in wanted)
    path = frame_path(root, "train", "label", "900002")
    assert path.name == "900002.PNG" and read_label(path).shape == (13, 9)


@pytest.mark.parametrize("name", ["{}.jpg", "{}.JPEG", "{}.png"])
def test_an_image_may_be_a_jpeg(root: Path, name: str) -> None:
    """Turned by no note in the file: depth and label lie as its pixels do."""
    before = read_image(frame_path(root, "train", "image", "900003"))
    path = as_jpeg(root, "900003", name, turn=True)
    assert full_check(root) == []
    found = FrameFolder(root, "train").read("900003", ("image", "depth", "label"))["image"]
    plain = cv2.imdecode(np.frombuffer(jpeg(before), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert found.shape == (40, 60, 3)
    np.testing.assert_array_equal(found, plain)
    assert frame_path(root, "train", "image", "900003") == path


def test_a_jpeg_of_four_colours_is_a_fault(root: Path) -> None:
    path = as_jpeg(root, "900003")
    data = path.read_bytes()
    at = data.index(b"\xff\xc0") + 9  # Behind marker, length, bits, height and width.
    path.write_bytes(data[:at] + b"\x04" + data[at + 1 :])
    assert [str(f) for f in quick_check(root)] == [f"{path}: expected 8-bit RGB, found 8-bit CMYK"]


def test_a_folder_in_capitals_is_no_split(root: Path) -> None:
    assert count_images(root) == "3 training images, 2 test images"
    (root / "test").rename(root / "TEST")
    assert count_images(root) == "3 training images, no test images"


def test_a_truncated_jpeg_is_a_fault(root: Path) -> None:
    path = as_jpeg(root, "900003", turn=True)
    data = path.read_bytes()
    preview = b"\xff\xe2" + (len(data) + 2).to_bytes(2, "big") + data
    path.write_bytes(data[:2] + preview + data[2:])  # The end of a preview is not the file's.
    assert full_check(root) == []
    for broken in (data[:-2], data[:-400], data[: len(data) // 2] + bytes(len(data) // 2)):
        path.write_bytes(data[:2] + preview + broken[2:])
        assert quick_check(root) == []
        assert [fault.path for fault in full_check(root)] == [path]
        with pytest.raises(UserError, match=r"900003\.jpg: truncated"):
            read_image(path)


@pytest.mark.parametrize("name", [".DS_Store", "._900001.png", "Thumbs.db", "desktop.ini"])
def test_what_systems_leave_is_passed_over(root: Path, name: str) -> None:
    (root / "train/image" / name).write_bytes(b"x")
    for folder in ("__MACOSX", ".ipynb_checkpoints"):
        (root / "test/image" / folder).mkdir()
        shutil.copy(root / "test/image/990001.png", root / "test/image" / folder / "x.png")
    assert full_check(root) == []
    assert list_ids(root, "test") == ["990001", "990002"]


@pytest.mark.parametrize(
    "name", ["990009.bmp", "990009.TIFF", "990009.npy", "more", "990009.png.part", "990009.JPG~"]
)
def test_what_may_be_a_frame_stops(root: Path, name: str) -> None:
    path = root / "test/image" / name
    path.write_bytes(b"x") if path.suffix else path.mkdir()
    assert [fault.path for fault in full_check(root)] == [path]
    for stops in (lambda: require_clean(root, ["test"]), lambda: list_ids(root, "test")):
        with pytest.raises(UserError, match=name):
            stops()


def test_a_text_among_frames_is_said_and_stops_nothing(root: Path, capsys) -> None:
    path = root / "train/label/readme.txt"
    path.write_text("made by hand")
    assert [fault.path for fault in full_check(root)] == [path]
    require_clean(root)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"!! {path}: no frame; not used")
    with pytest.raises(UserError, match="1 fault, listed above"):
        prepare_data.main(["check", "--input", str(root)])


@pytest.mark.parametrize("name", ["900003.jpg", "900003.PNG"])
def test_two_files_of_one_id_are_a_fault(root: Path, name: str) -> None:
    image = root / "train/image/900003.png"
    pixels = read_image(image)
    (root / "train/image" / name).write_bytes(jpeg(pixels))
    faults = [fault for fault in quick_check(root) if "second file of id 900003" in fault.what]
    assert len(faults) == 1
    with pytest.raises(UserError, match="a second file of id 900003"):
        list_ids(root, "train")


@pytest.mark.parametrize("kind", ["depth", "label"])
def test_depth_and_labels_are_no_jpeg(root: Path, kind: str) -> None:
    path = root / f"train/{kind}/900001.png"
    path.unlink()
    path = path.with_suffix(".jpg")
    path.write_bytes(jpeg(np.zeros((12, 16), np.uint8)))
    (fault,) = quick_check(root)
    assert fault.path == path and f"{kind} must be a PNG file" in fault.what
    with pytest.raises(UserError, match="cannot be decoded as PNG"):
        FrameFolder(root, "train").read("900001", ("image", kind))


@pytest.mark.parametrize("size", [(40000, 40000), (0, 12), (2**21, 4)])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_size_that_cannot_be_is_one_line(root: Path, size: tuple, ending: str) -> None:
    if ending == "jpg" and max(size) > 65535:
        return  # Its header has no room for that.
    path = as_jpeg(root, "900001") if ending == "jpg" else root / "train/image/900001.png"
    data = bytearray(path.read_bytes())
    if ending == "png":
        data[16:24] = b"".join(n.to_bytes(4, "big") for n in size)
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = b"".join(n.to_bytes(2, "big") for n in size[::-1])
    path.write_bytes(data)
    (fault,) = full_check(root)
    assert fault.path == path and fault.what.startswith(f"size {size[0]}x{size[1]}: ")
    with pytest.raises(UserError, match=rf"900001\.{ending}: size {size[0]}x{size[1]}"):
        require_clean(root)


def test_what_only_the_test_split_has_warns_training(root: Path, capsys) -> None:
    (root / "test/depth/990002.png").unlink()
    require_clean(root)
    assert capsys.readouterr().out.startswith(f"!! {root / 'test/depth/990002.png'}: missing")
    with pytest.raises(UserError, match="missing"):
        require_clean(root, ["test"])


def test_a_scene_on_both_sides_warns_training(root: Path, capsys) -> None:
    path = root / "scenes.csv"
    path.write_text(path.read_text() + "990001,b,kind_b\n")
    (fault,) = quick_check(root)
    assert "scene b is both in train (900002) and in test (990001)" in fault.what
    require_clean(root)
    assert len(capsys.readouterr().out.splitlines()) == 1
    require_clean(root, ["test"])  # What predicts needs no scenes.
    assert capsys.readouterr().out == ""


def test_score_counts_labels_in_capitals(root: Path, tmp_path: Path) -> None:
    capitals(root)
    masks = np.zeros((3, 12, 16), np.uint8)
    np.save(tmp_path / "submission.npy", masks[:2])
    with pytest.raises(UserError, match=r"expected \[3, H, W\]"):
        score.main([str(tmp_path / "submission.npy"), str(root / "train/label")])


def test_the_manifest_lists_ids_in_the_order_of_the_array(root: Path, tmp_path: Path) -> None:
    """Ids without leading zeros are sorted as text: 12, 16, 4, 8."""
    for old, new in (("900001", "8"), ("900002", "16"), ("900003", "4")):
        for path in root.glob(f"train/*/{old}.png"):
            path.rename(path.with_stem(new))
            shutil.copy(path.with_stem(new), path.with_stem("12")) if new == "8" else None
    config = parse_config({"name": "x"}, "test")
    ids = list_ids(root, "train")
    masks = {image_id: np.full((3, 4), int(image_id) % 13, np.uint8) for image_id in ids}
    predictions = [SimpleNamespace(id=image_id, mask=mask) for image_id, mask in masks.items()]
    predictor = SimpleNamespace(
        config=config,
        devices=[torch.device("cpu")],
        uses_depth=True,
        predict=lambda *_, **__: iter(predictions),
    )
    source = FrameFolder(root, "train")
    (tmp_path / "out").mkdir()
    manifest = write_submission(predictor, source, ids, tmp_path / "out", ["npy", "png"])
    assert manifest.ids == ["12", "16", "4", "8"]
    array = np.load(tmp_path / "out/submission.npy")
    assert array[:, 0, 0].tolist() == [12, 3, 4, 8]
    sizes = dict.fromkeys(reversed(ids), (3, 4))
    for name in ("submission.npy", "submission.zip"):
        for image_id, mask in read_masks(tmp_path / "out" / name, sizes):
            assert np.array_equal(mask, masks[image_id])
