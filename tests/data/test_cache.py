"""The frame cache: the same pictures as the files, renewed when they change, whole or absent."""

import os
import pickle
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from nyuseg.config.loading import parse_config
from nyuseg.data import frame_cache as cache
from nyuseg.data.frame_cache import FrameCache, open_cache
from nyuseg.data.frames import FrameFolder, frame_path, read_depth, read_image, write_png
from nyuseg.dataloading.dataset import PredictionSet, TrainingSet
from nyuseg.utils.errors import UserError

# Odd heights and widths: 16-bit depth must not depend on what lies before it.
SIZES = [(7, 9), (32, 48), (5, 5), (1, 1), (64, 33)]
KINDS = ("image", "depth", "label")


@pytest.fixture
def data(tiny_folder, tmp_path: Path) -> tuple[Path, list[str]]:
    return tmp_path / "data", tiny_folder(tmp_path / "data", SIZES)


def assert_same_pictures(found, root: Path, ids: list[str]) -> None:
    for image_id in ids:
        wanted = FrameFolder(root, "train").read(image_id, KINDS)
        frame = found.read(image_id, KINDS)
        assert list(frame) == list(KINDS)
        for kind in KINDS:
            assert frame[kind].dtype == wanted[kind].dtype
            np.testing.assert_array_equal(frame[kind], wanted[kind])


def test_pictures_are_those_of_the_files(data, tmp_path: Path, capsys) -> None:
    root, ids = data
    first = open_cache(root, ids, tmp_path / "cache")
    assert "decoding 5 frames" in capsys.readouterr().out
    assert_same_pictures(first, root, ids)
    assert not first.read(ids[0])["image"].flags.writeable
    assert_same_pictures(pickle.loads(pickle.dumps(first)), root, ids)  # As to a worker.
    size = (first.folder / cache.FRAMES).stat().st_size
    assert size == 6 * sum(height * width for height, width in SIZES)


def test_samples_are_the_same_with_and_without(data, tmp_path: Path) -> None:
    root, ids = data
    config = parse_config({"name": "x", "data": {"size": [32, 48]}}, "test")
    sources = FrameFolder(root, "train"), open_cache(root, ids, tmp_path / "cache")
    sets = [TrainingSet(source, ids, config, 1) for source in sources]
    predicted = [PredictionSet(source, ids, config.data) for source in sources]
    for index in range(len(ids)):
        for plain, cached in ([s[2, index] for s in sets], [s[index] for s in predicted]):
            assert plain.keys() == cached.keys()
            for key in plain:
                np.testing.assert_array_equal(plain[key], cached[key])


def test_a_hit_decodes_nothing(data, tmp_path: Path, monkeypatch, capsys) -> None:
    root, ids = data
    open_cache(root, ids, tmp_path / "cache")
    capsys.readouterr()
    monkeypatch.setattr(FrameFolder, "read", lambda *_: pytest.fail("a PNG file was decoded"))
    again = open_cache(root, ids, tmp_path / "cache")
    for _ in range(2):
        again.read(ids[1], KINDS)
    assert capsys.readouterr().out == ""


def test_a_changed_file_renews_the_cache(data, tmp_path: Path, capsys) -> None:
    root, ids = data
    open_cache(root, ids, tmp_path / "cache")
    path = frame_path(root, "train", "image", ids[1])
    pixels = read_image(path)
    pixels[3, 5] ^= 1
    write_png(path, pixels)
    found = open_cache(root, ids, tmp_path / "cache")
    assert f"{path} has changed" in capsys.readouterr().out
    assert_same_pictures(found, root, ids)


def stored(pixels: np.ndarray) -> bytes:
    """A PNG file whose size does not depend on the pixels."""
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()


def test_a_file_that_was_only_touched_is_recognised(data, tmp_path: Path, capsys) -> None:
    root, ids = data
    path = frame_path(root, "train", "depth", ids[2])
    pixels = read_depth(path)
    path.write_bytes(stored(pixels))
    open_cache(root, ids, tmp_path / "cache")
    os.utime(path, ns=(1, 1))
    capsys.readouterr()
    for _ in range(2):  # The second time its new date is known.
        open_cache(root, ids, tmp_path / "cache")
    assert capsys.readouterr().out == ""
    pixels[1, 3] ^= 1
    path.write_bytes(stored(pixels))  # The same size, another content.
    open_cache(root, ids, tmp_path / "cache")
    assert f"{path} has changed" in capsys.readouterr().out


@pytest.mark.parametrize("spoil", ["fewer", "more", "truncated", "gone", "index"])
def test_what_does_not_fit_is_built_again(data, tmp_path: Path, spoil: str) -> None:
    root, ids = data
    wanted = ids[:-1] if spoil == "more" else ids
    folder = open_cache(root, wanted, tmp_path / "cache").folder
    frames, index = folder / cache.FRAMES, folder / cache.INDEX
    if spoil == "truncated":
        frames.write_bytes(frames.read_bytes()[:-1])
    elif spoil == "gone":
        frames.unlink()
    elif spoil == "index":
        index.write_text(index.read_text()[:100])
    wanted = ids[:-1] if spoil == "fewer" else ids
    assert_same_pictures(open_cache(root, wanted, tmp_path / "cache"), root, wanted)


def test_a_broken_file_is_named_and_leaves_no_cache(data, tmp_path: Path) -> None:
    root, ids = data
    path = frame_path(root, "train", "depth", ids[3])
    path.write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=f"{path.name}: cannot be decoded"):
        open_cache(root, ids, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("data*"))


def test_a_disk_without_room_means_files_and_says_so(data, tmp_path: Path, monkeypatch, capsys):
    root, ids = data
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    found = open_cache(root, ids, tmp_path / "cache")
    assert isinstance(found, FrameFolder)
    assert "reading the files instead" in capsys.readouterr().out


def test_processes_that_begin_together_build_it_once(data, tmp_path: Path, monkeypatch) -> None:
    root, ids = data
    built = []
    build = cache._build
    monkeypatch.setattr(cache, "_build", lambda *given: (built.append(1), build(*given)))
    found: list[FrameCache] = []
    threads = [
        threading.Thread(target=lambda: found.append(open_cache(root, ids, tmp_path / "cache")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    for one in found:
        assert_same_pictures(one, root, ids)
