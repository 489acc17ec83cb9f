"""Depth in another unit: what is said about it, and what the settings make of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import infer
import prepare_data
import train_folds
from nyuseg.config.loading import load_config, parse_config
from nyuseg.config.sections import Data
from nyuseg.data.depth import to_millimetres
from nyuseg.data.depth_check import sample, sample_lines
from nyuseg.data.frame_cache import open_cache
from nyuseg.data.frames import FrameFolder, frame_path, list_ids, read_depth, write_png
from nyuseg.dataloading.dataset import PredictionSet, TrainingSet, read_frame
from nyuseg.demo.data import write_demo
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, read_json

SIZE = (48, 64)


def rotated(millimetres: np.ndarray) -> np.ndarray:
    """As SUN RGB-D stores them."""
    return (millimetres << 3) | (millimetres >> 13)


def missing_as_65535(millimetres: np.ndarray) -> np.ndarray:
    return np.where(millimetres, millimetres, 65535).astype(np.uint16)


def scaled(factor: float):
    def convert(millimetres: np.ndarray) -> np.ndarray:
        found = np.minimum(np.rint(millimetres * factor), 65535).astype(np.uint16)
        return np.where(millimetres, np.maximum(found, 1), 0).astype(np.uint16)

    return convert


UNITS = {
    "data.depth_unit=sunrgbd": rotated,
    "data.depth_missing=[65535]": missing_as_65535,
    "data.depth_unit=0.2": scaled(5),
    "data.depth_unit=0.1": scaled(10),
    "data.depth_unit=10": scaled(0.1),
    "data.depth_unit=1000": scaled(0.001),
}


def room(root: Path, convert=None) -> Path:
    """Two rooms with depths as sensors see them, 2.7 m in the middle, a tenth of it missing."""
    write_demo(root, scenes=4, frames=1, test_scenes=1, size=SIZE, seed=1)
    generator = np.random.default_rng(3)
    for path in sorted(root.glob("*/depth/*.png")):
        metres = np.clip(2.7 * np.exp(0.45 * generator.standard_normal(SIZE)), 0.8, 9.5)
        depth = np.rint(1000 * metres).astype(np.uint16)
        depth[generator.random(SIZE) < 0.1] = 0
        write_png(path, convert(depth) if convert else depth)
    return root


def check(root: Path, capsys, *settings: str) -> list[str]:
    capsys.readouterr()
    prepare_data.main(["check", "--input", str(root), *(f"--set={one}" for one in settings)])
    return [line for line in capsys.readouterr().out.splitlines() if "override" not in line]


# What is said


@pytest.mark.parametrize("setting", UNITS)
def test_check_names_the_setting_that_mends(setting: str, tmp_path: Path, capsys) -> None:
    root = room(tmp_path / "data", UNITS[setting])
    warnings = [line for line in check(root, capsys) if line.startswith("!!")]
    assert len(warnings) == 2  # Of train and of test.
    assert all(setting in line.replace("'", "") and line.endswith(" !!") for line in warnings)
    lines = check(root, capsys, setting)
    assert not [line for line in lines if "!!" in line]
    first = next(line for line in lines if line.startswith("depth: "))
    median = float(first.split()[2])
    assert median == pytest.approx(2.7, abs=0.35) and "(train, 4 frames)" in first
    missing = float(first.split("% missing")[0].split()[-1])
    assert missing == pytest.approx(10, abs=1)


def test_ordinary_depth_gives_no_warning(tmp_path: Path, capsys) -> None:
    lines = check(room(tmp_path / "data"), capsys)
    assert [line.split(" m,")[0][:11] for line in lines[1:]] == ["depth: medi"] * 2
    assert not [line for line in lines if "!!" in line]


def test_demo_rooms_give_no_warning(tmp_path: Path, capsys) -> None:
    write_demo(tmp_path, scenes=4, frames=1, test_scenes=1, size=SIZE, seed=1)
    assert "!!" not in "".join(check(tmp_path, capsys))


@pytest.mark.parametrize("name", ["rooms", "nyuv2_sample"])
def test_real_depth_gives_no_warning(name: str, capsys) -> None:
    root = PROJECT.parent / "shared/data" / name
    if not root.exists():
        pytest.skip(f"{root} is not on this machine: the frames must not be redistributed")
    assert "!!" not in "".join(check(root, capsys))


def test_a_scale_that_nothing_explains_is_said_without_a_guess(tmp_path: Path, capsys) -> None:
    root = room(tmp_path / "data", lambda depth: np.where(depth, 30, 0).astype(np.uint16))
    # One number throughout: 0.03 m, or 0.3 m in centimetres, or 30 m in metres.
    warnings = [line for line in check(root, capsys) if "!!" in line]
    assert warnings and all("the millimetres that a step" in line for line in warnings)


def test_a_unit_and_a_missing_value_are_named_together(tmp_path: Path, capsys) -> None:
    """65535 in steps of .1 mm is 6.6 m, a depth like others; it is named all the same."""

    def convert(depth: np.ndarray) -> np.ndarray:
        return np.where(depth, np.minimum(depth.astype(int) * 10, 65000), 65535).astype(np.uint16)

    root = room(tmp_path / "data", convert)
    unit, missing = "data.depth_unit=0.1", "data.depth_missing=[65535]"
    warnings = [line for line in check(root, capsys) if "!!" in line]
    assert warnings and all(unit in line and missing in line for line in warnings)
    warnings = [line for line in check(root, capsys, unit) if "!!" in line]
    assert warnings and all(missing in line for line in warnings)
    assert "!!" not in "".join(check(root, capsys, unit, missing))


def test_millimetres_are_proposed_where_another_unit_was_set(tmp_path: Path, capsys) -> None:
    lines = check(room(tmp_path / "data"), capsys, "data.depth_unit=0.2")
    assert "--set data.depth_unit=mm !!" in "".join(lines)


def test_depth_in_few_levels_gets_no_guess(tmp_path: Path, capsys) -> None:
    levels = room(tmp_path / "data", lambda depth: (depth // 39).astype(np.uint16))
    assert "looks like" not in "".join(check(levels, capsys))


def test_files_that_are_not_as_in_training_are_to_be_converted(tmp_path: Path) -> None:
    root = room(tmp_path / "data", scaled(5))
    ids = list_ids(root, "test")
    line, warning = sample_lines(root, "test", ids, Data(), trained=True)
    assert line.startswith("depth: median") and "--set" not in warning
    assert "other depth than the training's (data.depth_unit mm)" in warning
    assert len(sample_lines(root, "test", ids, Data(depth_unit=0.2), trained=True)) == 1


def test_depth_that_is_zero_throughout_is_said_aloud(tmp_path: Path) -> None:
    root = room(tmp_path / "data", np.zeros_like)
    _, warning = sample_lines(root, "train", list_ids(root, "train"), Data())
    assert warning.startswith("!! no depth at any pixel") and "depth_head=false" in warning


def test_a_sample_is_even_and_the_same_each_time() -> None:
    ids = [str(number) for number in range(100)]
    assert sample(ids, 4) == ["0", "33", "66", "99"] and sample(ids[:3], 4) == ids[:3]


# What the settings make of it


def test_numbers_become_millimetres_and_never_wrap() -> None:
    stored = np.array([[0, 1, 8, 20001], [40, 65534, 65535, 7]], np.uint16)
    assert to_millimetres(stored) is stored
    np.testing.assert_array_equal(
        to_millimetres(stored, "sunrgbd"),
        [[0, 8192, 1, 2500 + 8192], [5, 57343, 65535, 57344]],
    )
    tens = to_millimetres(stored, 10.0, (65535, 8))
    np.testing.assert_array_equal(tens, [[0, 10, 0, 65535], [400, 65535, 0, 70]])
    assert tens.dtype == np.uint16
    # Near, but there: not missing.
    np.testing.assert_array_equal(
        to_millimetres(stored, 0.2), [[0, 1, 2, 4000], [8, 13107, 13107, 1]]
    )


def test_every_depth_of_sun_rgbd_comes_back() -> None:
    millimetres = np.arange(2**16, dtype=np.uint16)
    np.testing.assert_array_equal(to_millimetres(rotated(millimetres), "sunrgbd"), millimetres)


@pytest.mark.parametrize("value", ["m", "0", "-1", "nan", "inf", "true", "[1]"])
def test_another_unit_is_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"data\.depth_unit: must be mm, sunrgbd or a positive"):
        load_config(PROJECT / "configs/exp060.yaml", [f"data.depth_unit={value}"])


@pytest.mark.parametrize("value", ["[0]", "[65536]", "[x]", "65535"])
def test_another_missing_value_is_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"data\.depth_missing"):
        load_config(PROJECT / "configs/exp060.yaml", [f"data.depth_missing={value}"])


@pytest.mark.parametrize(("typed", "unit"), [("0.2", 0.2), ("sunrgbd", "sunrgbd"), ("10", 10.0)])
def test_a_unit_survives_the_file_of_an_experiment(typed: str, unit, tmp_path: Path) -> None:
    overrides = [f"data.depth_unit={typed}", "data.depth_missing=[65535]"]
    config = load_config(PROJECT / "configs/exp060.yaml", overrides)
    assert (config.data.depth_unit, config.data.depth_missing) == (unit, (65535,))
    assert parse_config(config.model_dump(mode="json"), "test") == config


def test_experiments_of_different_units_share_a_cache(tmp_path: Path) -> None:
    root = room(tmp_path / "data", scaled(5))
    ids = list_ids(root, "train")
    cache = open_cache(root, ids, tmp_path / "cache")
    stored = read_depth(frame_path(root, "train", "depth", ids[1]))
    for source in (cache, FrameFolder(root, "train"), open_cache(root, ids, tmp_path / "cache")):
        for unit in (0.2, "mm", 10.0):
            data = Data(size=SIZE, depth_unit=unit, depth_missing=(int(stored[5, 9]),))
            expected = to_millimetres(stored, unit, data.depth_missing)
            frames = PredictionSet(source, ids, data)
            frame = read_frame(source, ids[1], ("depth",), data)
            np.testing.assert_array_equal(frame["depth"], expected)
            np.testing.assert_array_equal(frames[1]["depth"], expected)
    assert len(list((tmp_path / "cache").glob("data-*"))) <= 2  # The cache and its lock.


def test_training_frames_are_converted_too(tmp_path: Path) -> None:
    root = room(tmp_path / "data", rotated)
    still = {"flip": 0, "shift": 0, "scale": 0, "rotate": 0}
    values = {"name": "x", "data": {"size": SIZE, "depth_unit": "sunrgbd"}, "augment": still}
    ids = list_ids(root, "train")
    frames = TrainingSet(FrameFolder(root, "train"), ids, parse_config(values, "test"), fold=0)
    stored = read_depth(frame_path(root, "train", "depth", ids[2]))
    np.testing.assert_array_equal(frames[0, 2]["depth"], to_millimetres(stored, "sunrgbd"))


@pytest.mark.slow
def test_an_experiment_in_another_unit_is_the_one_in_millimetres(tmp_path: Path, capsys) -> None:
    """The same rooms in millimetres and rotated: the same losses, MAE and masks."""
    found = {}
    for name, convert, unit in (("plain", None, "mm"), ("sun", rotated, "sunrgbd")):
        root, oof = room(tmp_path / name, convert), tmp_path / f"oof_{name}"
        changes = (
            *("model.encoder=tu-test_resnet", "data.size=[48,64]", "train.epochs=1"),
            *("folds.count=2", "train.batch_size=2", f"data.depth_unit={unit}"),
        )
        options = ["--config", str(PROJECT / "configs/demo.yaml"), "--input", str(root)]
        options += [f"--set={change}" for change in changes]
        train_folds.main(["--fold", "all", "--oof", str(oof), *options])
        output = ["--submissions", str(tmp_path / f"out_{name}"), "--format", "npy"]
        infer.main(["--experiment", "demo", "--oof", str(oof), *output])
        printed = capsys.readouterr().out
        assert "depth: median 2.7" in printed and "depth in another unit" not in printed
        folder = tmp_path / f"out_{name}/demo"
        assert read_json(folder / "manifest.json")["depth"] == {"unit": unit, "missing": []}
        found[name] = (
            pd.read_csv(oof / "demo/fold_0/metrics.csv").drop(columns="seconds").to_csv(),
            read_json(oof / "demo/cv.json")["depth_mae_m"],
            (folder / "submission.npy").read_bytes(),
            (folder / "preview.png").read_bytes(),
        )
    assert found["plain"] == found["sun"]
    # The test depth of the other folder, in a unit that training did not know.
    output = ["--submissions", str(tmp_path / "odd"), "--input", str(tmp_path / "sun")]
    infer.main(["--experiment", "demo", "--oof", str(tmp_path / "oof_plain"), *output])
    assert "!! these files hold other depth than the training's" in capsys.readouterr().out
