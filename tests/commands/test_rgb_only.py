"""Data without depth: everything works that needs none, and what needs some says so at once."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import blend
import compare
import infer
import package_kernel
import prepare_data
import score
import train_folds
import tta_search
from nyuseg.data.frame_cache import cache_bytes
from nyuseg.data.frames import frame_path, read_image, stored_kinds
from nyuseg.data.integrity import quick_check, require_clean
from nyuseg.demo.data import write_demo
from nyuseg.kaggle.kernel import find_frames, run
from nyuseg.kaggle.kernel_check import mount
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, read_json

TINY = ("model.encoder=tu-test_resnet", "data.size=[48,64]", "train.epochs=1", "folds.count=2")
RGB = ("data.channels=[rgb]", "model.depth_head=false")
WAY_OUT = r"--set 'data\.channels=\[rgb\]' --set model\.depth_head=false"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tiny rooms twice: whole in `rgbd`, without any depth in `rgb`."""
    work = tmp_path_factory.mktemp("rgb_only")
    write_demo(work / "rgbd", scenes=5, frames=2, test_scenes=2, size=(48, 64), seed=1)
    shutil.copytree(work / "rgbd", work / "rgb", ignore=shutil.ignore_patterns("depth"))
    return work


def train(work: Path, data: str, name: str, *changes: str) -> Path:
    config = ["--config", str(PROJECT / "configs/demo.yaml"), "--input", str(work / data)]
    options = [f"--set={change}" for change in (*TINY, f"name={name}", *changes)]
    train_folds.main(["--fold", "all", *config, "--oof", str(work / "oof"), *options])
    return work / "oof" / name


@pytest.fixture(scope="module")
def trained(work: Path) -> Path:
    return train(work, "rgb", "blind", *RGB)


def predict(work: Path, experiment: str, *more: str) -> Path:
    place = ["--oof", str(work / "oof"), "--submissions", str(work / "out")]
    infer.main(["--experiment", experiment, *place, *more])
    return work / "out" / experiment


def test_check_accepts_data_without_depth_and_says_what_it_is_for(work: Path, capsys) -> None:
    prepare_data.main(["check", "--input", str(work / "rgb")])
    lines = capsys.readouterr().out.splitlines()
    hint = "to train without depth, use --set 'data.channels=[rgb]' --set model.depth_head=false"
    assert lines[-2:] == [
        f"no depth in {work / 'rgb' / split}: {hint}" for split in ("train", "test")
    ]
    prepare_data.main(["check", "--input", str(work / "rgbd")])
    assert "no depth" not in capsys.readouterr().out


def test_hidden_files_are_no_depth_and_capitals_are(tmp_path: Path) -> None:
    (tmp_path / "test/depth").mkdir(parents=True)
    (tmp_path / "test/depth/._a.png").touch()
    assert stored_kinds(tmp_path, "test") == ("image",)
    (tmp_path / "test/depth/a.PNG").touch()
    assert stored_kinds(tmp_path, "test") == ("image", "depth")


def test_some_depth_must_be_all_of_it(work: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(work / "rgbd", tmp_path / "data"))
    lost = sorted((data / "train/depth").iterdir())[3]
    lost.unlink()
    assert [str(fault) for fault in quick_check(data)] == [
        f"{lost}: missing; only image and label of this id found"
    ]


@pytest.mark.parametrize("changes", [(), RGB[:1], RGB[1:], (*RGB[:1], "train.depth_loss=0")])
def test_training_that_needs_depth_names_the_keys_that_do_without(
    work: Path, changes: tuple[str, ...]
) -> None:
    with pytest.raises(UserError, match=rf"rgb/train/depth: no depth images; .*{WAY_OUT}"):
        train(work, "rgb", "needy", *changes)
    assert not (work / "oof/needy").exists()


def test_a_cache_without_depth_takes_four_bytes_a_pixel(work: Path) -> None:
    assert cache_bytes(work / "rgb", 10) == 4 * 10 * 48 * 64
    assert cache_bytes(work / "rgbd", 10) == 6 * 10 * 48 * 64


@pytest.mark.slow
def test_the_whole_way_without_depth(work: Path, trained: Path, tmp_path: Path, capsys) -> None:
    """From training to the kernel; and depth that lies beside would change nothing."""
    assert (work / "oof/.cache").is_dir()
    assert read_json(trained / "cv.json")["depth_mae_m"] is None
    beside = train(work, "rgbd", "beside", *RGB)
    for fold in (0, 1):
        one, other = (load_file(f / f"fold_{fold}/weights.safetensors") for f in (trained, beside))
        assert all(np.array_equal(one[key], other[key]) for key in one)
    out = predict(work, "blind")
    files = read_json(out / "manifest.json")["files"]
    assert files == read_json(predict(work, "beside") / "manifest.json")["files"]
    # Image and prediction, without a depth that nothing saw between them.
    widths = [read_image(work / "out" / n / "preview.png").shape[1] for n in ("blind", "beside")]
    assert widths == [2 * 320 + 6] * 2
    tta_search.main(["blind", "--oof", str(work / "oof")])
    compare.main(["blind", "--oof", str(work / "oof")])
    score.main([str(out), str(work / "rgb/test_label")])
    assert "mIoU" in capsys.readouterr().out

    to = ["--owner", "alice", "--experiment", "blind", "--output", str(tmp_path)]
    package_kernel.main([*to, "--oof", str(work / "oof"), "--precision", "fp32", "--no-tta"])
    found = read_json(tmp_path / "dataset/manifest.json")["fingerprint"]
    inputs = mount(tmp_path, "plain", tmp_path / "dataset", work / "rgb/test")
    manifest = run(tmp_path / "dataset", found, inputs, tmp_path / "working", 8)
    assert manifest.files == files


@pytest.mark.slow
def test_a_blend_needs_depth_when_one_of_its_members_does(work: Path, trained: Path) -> None:
    """The member that sees no depth is the first: the set of frames is not its alone."""
    train(work, "rgbd", "seeing")
    train(work, "rgbd", "beside", *RGB)
    compare.main(["beside", "seeing", "--oof", str(work / "oof")])
    blend.main(["beside", "seeing", "--name", "both", "--oof", str(work / "oof")])
    assert predict(work, "both").is_dir()
    with pytest.raises(UserError, match=r"rgb/test/depth: no depth images; both was trained"):
        predict(work, "both", "--input", str(work / "rgb"))


@pytest.mark.slow
def test_a_depth_head_needs_depth_to_learn_but_not_to_predict(work: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(work / "rgbd", data)
    shutil.rmtree(data / "test/depth")
    assert (stored_kinds(data, "train"), stored_kinds(data, "test")) == (
        ("image", "depth", "label"),
        ("image",),
    )
    train(tmp_path, "data", "head", RGB[0])
    assert read_json(tmp_path / "oof/head/cv.json")["depth_mae_m"] > 0
    assert predict(tmp_path, "head").is_dir()
    with pytest.raises(UserError, match=rf"data/test/depth: no depth images; .*{WAY_OUT}"):
        train(tmp_path, "data", "needy")


def test_depth_at_fault_stops_what_predicts_only_where_it_is_seen(tiny_folder, tmp_path) -> None:
    """On Kaggle nobody can move it away."""
    tiny_folder(tmp_path, [(32, 48)], test=[(32, 48), (16, 24)])
    depth = sorted((tmp_path / "test/depth").iterdir())
    depth[0].write_bytes(depth[1].read_bytes())  # Of another size than its image.
    (tmp_path / "test/depth/a.npy").touch()
    require_clean(tmp_path, ["test"], depth=False)
    assert len(find_frames(tmp_path, None, depth=False)[1]) == 2
    for look in (lambda: require_clean(tmp_path, ["test"]), lambda: find_frames(tmp_path, None)):
        with pytest.raises(UserError, match="test/depth/"):
            look()


def test_depth_at_fault_that_nothing_needs_can_be_moved_away(tiny_folder, tmp_path: Path) -> None:
    ids = tiny_folder(tmp_path, [(32, 48)] * 3)
    frame_path(tmp_path, "train", "depth", ids[1]).unlink()
    with pytest.raises(UserError, match=r"missing; .* move the folder depth/ away to do without"):
        require_clean(tmp_path, depth=False)
    with pytest.raises(UserError, match=r"missing; only image and label of") as caught:
        require_clean(tmp_path)
    assert "move" not in str(caught.value)
