"""The converter of the official file, on a small file of the same structure."""

import csv
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from nyuseg.data.classes import CLASS_NAMES
from nyuseg.data.frames import read_depth, read_image, read_label
from nyuseg.data.integrity import full_check
from nyuseg.data.nyuv2_mat import CLASSES, convert_mat, from_metres
from nyuseg.utils import files
from nyuseg.utils.errors import UserError

HEIGHT, WIDTH = 24, 32
SPLITS = ("test", "train", "train", "test")
SCENES = ("kitchen_0004", "office_0001", "office_0001", "bath_0002")


class Source:
    """Arrays as a person sees them, and the files made of them."""

    def __init__(self, folder: Path):
        self.mat = folder / "small.mat"
        self.table = folder / "table.csv"
        self.root = folder / "data"
        rng = np.random.default_rng(0)
        count = len(SPLITS)
        self.images = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
        self.depths = rng.uniform(0.5, 9.9, (count, HEIGHT, WIDTH)).astype(np.float32)
        self.raw = self.depths.copy()
        self.raw[:, 2:5, 20:30] = 0
        self.labels = rng.integers(0, 895, (count, HEIGHT, WIDTH)).astype(np.uint16)
        self.scenes = list(SCENES)
        lines = [f"{i:06d},{SPLITS[i]},{SCENES[i]},x\n" for i in range(count)]
        self.table.write_text("image_id,split,scene,scene_type\n" + "".join(lines))

    def write(self) -> None:
        # MATLAB puts a block of 512 bytes in front of the HDF5 content.
        with h5py.File(self.mat, "w", userblock_size=512) as file:
            images = self.images.transpose(0, 3, 2, 1)
            file.create_dataset("images", data=images, chunks=(2, 1, 16, 8), compression="gzip")
            for name, maps in (
                ("depths", self.depths),
                ("rawDepths", self.raw),
                ("labels", self.labels),
            ):
                data = maps.transpose(0, 2, 1)
                file.create_dataset(name, data=data, chunks=(3, 16, 8), compression="gzip")
            references = file.create_dataset("scenes", (1, len(self.scenes)), h5py.ref_dtype)
            for index, scene in enumerate(self.scenes):
                text = np.array([ord(letter) for letter in scene], np.uint16)[:, None]
                references[0, index] = file.create_dataset(f"#refs#/s{index}", data=text).ref

    def convert(self, **options) -> None:
        convert_mat(self.mat, self.root, table=self.table, **options)

    def files(self) -> dict[str, bytes]:
        found = self.root.rglob("*.png")
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}

    def label_of(self, index: int) -> Path:
        folder = "test_label" if SPLITS[index] == "test" else "train/label"
        return self.root / folder / f"{index:06d}.png"


@pytest.fixture
def source(tmp_path: Path) -> Source:
    made = Source(tmp_path)
    made.write()
    return made


@pytest.mark.parametrize("index", range(len(SPLITS)))
def test_pixels_are_the_sources(source: Source, index: int) -> None:
    source.convert()
    folder = source.root / SPLITS[index]
    image = read_image(folder / "image" / f"{index:06d}.png")
    depth = read_depth(folder / "depth" / f"{index:06d}.png")
    assert np.array_equal(image, source.images[index])
    assert np.array_equal(depth, np.rint(source.depths[index].astype(float) * 1000))


def test_a_mark_stays_in_its_corner(source: Source) -> None:
    source.images[1] = 0
    source.images[1, 1, 29] = (255, 128, 7)
    source.depths[1] = 1
    source.depths[1, 1, 29] = 2.5
    source.labels[1] = 0
    source.labels[1, 1, 29] = 21
    source.write()
    source.convert()
    image = read_image(source.root / "train/image/000001.png")
    depth = read_depth(source.root / "train/depth/000001.png")
    label = read_label(source.root / "train/label/000001.png")
    assert image.shape == (HEIGHT, WIDTH, 3)
    assert tuple(image[1, 29]) == (255, 128, 7)
    assert np.count_nonzero(image) == 3
    assert depth[1, 29] == 2500
    assert np.count_nonzero(depth != 1000) == 1
    assert label[1, 29] != 255
    assert np.count_nonzero(label != 255) == 1


def test_labels_become_the_13_classes(source: Source) -> None:
    with CLASSES.open(newline="") as file:
        class_of = {int(row["label_id"]): int(row["nyu13_id"]) for row in csv.DictReader(file)}
    class_of[0] = 255
    # Every label of the file once, in every split.
    everything = np.resize(np.arange(895), (2, HEIGHT * WIDTH)).reshape(2, HEIGHT, WIDTH)
    source.labels[:2] = everything
    source.labels[2:] = everything
    source.write()
    source.convert()
    for index in range(len(SPLITS)):
        expected = np.vectorize(class_of.get)(source.labels[index])
        assert np.array_equal(read_label(source.label_of(index)), expected)


@pytest.mark.parametrize(("label", "name"), [(21, "wall"), (11, "floor"), (157, "bed")])
def test_known_labels_have_the_right_class(source: Source, label: int, name: str) -> None:
    source.labels[:] = label
    source.write()
    source.convert()
    assert np.all(read_label(source.label_of(0)) == CLASS_NAMES.index(name))


def test_folders_hold_the_split_and_no_test_label(source: Source) -> None:
    source.convert()
    kinds = {"train": ("image", "depth", "label"), "test": ("image", "depth")}
    expected = {
        f"{split}/{kind}/{index:06d}.png"
        for index, split in enumerate(SPLITS)
        for kind in kinds[split]
    }
    expected |= {"test_label/000000.png", "test_label/000003.png"}
    assert set(source.files()) == expected
    assert not (source.root / "test/label").exists()
    assert full_check(source.root) == []


def test_raw_depth_keeps_the_holes(source: Source) -> None:
    source.convert(raw_depth=True)
    depth = read_depth(source.root / "train/depth/000002.png")
    assert not depth[2:5, 20:30].any()
    assert np.count_nonzero(depth == 0) == 30


def test_depth_kinds_are_never_mixed(source: Source) -> None:
    source.convert()
    before = source.files()
    with pytest.raises(UserError, match="rawDepths"):
        source.convert(raw_depth=True)
    assert source.files() == before


def test_millimetres() -> None:
    metres = np.array([0, -1, np.nan, np.inf, -np.inf, 1.2344, 1.2346, 65.535, 70], np.float32)
    expected = [0, 0, 0, 0, 0, 1234, 1235, 65535, 65535]
    assert from_metres(metres).tolist() == expected
    assert from_metres(metres).dtype == np.uint16


def test_resume_writes_only_what_is_missing(
    source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    source.convert()
    before = source.files()
    assert "4 images, 0 of them already" in capsys.readouterr().out
    (source.root / "test/depth/000000.png").unlink()
    source.label_of(2).unlink()
    kept = source.root / "train/image/000001.png"
    stamp = kept.stat().st_mtime_ns
    source.convert()
    out = capsys.readouterr().out
    assert "4 images, 2 of them already" in out
    assert source.files() == before
    assert kept.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("stop", [2, 3, 6, 9])
def test_interruption_leaves_whole_files(
    source: Source, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    sync, calls = os.fsync, []

    def interrupted(handle: int) -> None:
        calls.append(handle)
        if len(calls) == stop:
            raise KeyboardInterrupt
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            source.convert()
    partial = source.files()
    assert not [name for name in partial if Path(name).name.startswith(".")]
    source.convert()
    whole = source.files()
    assert len(whole) == 12
    assert {name: whole[name] for name in partial} == partial
    assert full_check(source.root) == []


def test_absent_file(source: Source) -> None:
    source.mat.unlink()
    refused(source, "no such file")


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_truncated_file(source: Source, share: float) -> None:
    data = source.mat.read_bytes()
    source.mat.write_bytes(data[: int(len(data) * share)])
    refused(source, "truncated")


def test_file_that_is_not_hdf5(source: Source) -> None:
    source.mat.write_text("<html>not found</html>\n" * 100)
    refused(source, "not the official HDF5 file")


def test_damage_inside_the_file(source: Source) -> None:
    with h5py.File(source.mat) as file:
        chunk = file["labels"].id.get_chunk_info(0)
    data = bytearray(source.mat.read_bytes())
    # The offset does not count MATLAB's block.
    start = chunk.byte_offset + (0 if data[chunk.byte_offset] == 0x78 else 512)
    data[start : start + chunk.size] = bytes(chunk.size)
    source.mat.write_bytes(data)
    refused(source, "truncated or not")


def test_wrong_scene_names(source: Source) -> None:
    source.scenes[2] = "office_0009"
    source.write()
    refused(source, "image 000002 is of scene 'office_0009', expected 'office_0001'")


def test_wrong_number_of_images(source: Source) -> None:
    with source.table.open("a") as table:
        table.write("000004,test,bath_0002,x\n")
    refused(source, "dataset 'images' should be uint8")


@pytest.mark.parametrize("name", ["images", "depths", "labels", "scenes"])
@pytest.mark.parametrize("fault", ["absent", "group", "shape"])
def test_wrong_datasets(source: Source, name: str, fault: str) -> None:
    with h5py.File(source.mat, "a") as file:
        wrong = file[name][()][..., :3]
        del file[name]
        if fault == "group":
            file.create_group(name)
        elif fault == "shape":
            file.create_dataset(
                name, data=wrong, dtype=h5py.ref_dtype if name == "scenes" else None
            )
    refused(source, "dataset '")


def test_label_above_894(source: Source) -> None:
    source.labels[2, 3, 4] = 895
    source.write()
    refused(source, "image 000002 has label 895")
    assert not source.label_of(2).exists()


def refused(source: Source, words: str) -> None:
    with pytest.raises(UserError) as caught:
        source.convert()
    message = str(caught.value)
    assert words in message
    assert message.startswith(f"{source.mat}: ")
    assert "\n" not in message
