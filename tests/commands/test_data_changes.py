"""Data that was corrected, touched or moved since training, seen by every command that opens it."""

import os
import shutil
from pathlib import Path

import pytest
from tiny_data import write_tiny_folder

import blend
import compare
import infer
import train_folds
import tta_search
from nyuseg.data.fingerprint import describe_all, differences, digest
from nyuseg.data.frames import read_label, write_png
from nyuseg.experiment.folder import open_experiment
from nyuseg.experiment.training_data import FILES, require_same_data
from nyuseg.training import pipeline
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, read_json


def arguments(work: Path, *more: str, data: str = "data") -> list[str]:
    config = ["--config", str(PROJECT / "configs/demo.yaml")]
    settings = ["model.encoder=tu-test_resnet", "data.size=[32,48]", "folds.count=2"]
    settings += ["train.epochs=1", "train.batch_size=2", *more]
    folders = ["--input", str(work / data), "--oof", str(work / "oof")]
    return ["--fold", "all", *config, *folders, *(f"--set={text}" for text in settings)]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished experiment and a second one of the same data."""
    work = tmp_path_factory.mktemp("made")
    write_tiny_folder(work / "data", [(32, 48)] * 6, list("aabbcc"), [(32, 48)] * 2)
    train_folds.main(arguments(work))
    train_folds.main(arguments(work, "name=second", "seed=7"))
    return work


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """A copy of it, as after a move to another disk."""
    shutil.copytree(made, tmp_path / "work", copy_function=shutil.copy2)
    for name in ("demo", "second"):
        path = tmp_path / "work/oof" / name / "experiment.json"
        path.write_text(path.read_text().replace(str(made), str(tmp_path / "work")))
    return tmp_path / "work"


def correct_label(work: Path) -> Path:
    """Correct a label in place so that the size of its file stays; returns the file."""
    path = work / "data/train/label/900003.png"
    label, size = read_label(path), path.stat().st_size
    for row in range(label.shape[0]):
        changed = label.copy()
        changed[row, :2] = changed[row, 1::-1]
        write_png(path, changed)
        if path.stat().st_size == size and (changed != label).any():
            return path
    raise AssertionError("no such correction")


def commands(work: Path, *given: str) -> list:
    shared = ["--oof", str(work / "oof"), *given]
    return [
        lambda: compare.main(["demo", "second", *shared]),
        lambda: tta_search.main(["demo", "--scales", "", *shared]),
        lambda: blend.main(["demo", "second", "--name", "both", *shared]),
    ]


@pytest.mark.slow
def test_a_label_corrected_in_place_is_seen_by_training_and_by_every_score(work: Path) -> None:
    path = correct_label(work)
    with pytest.raises(
        UserError, match=r"begun with other data \(label/900003 differs, in all 1\)"
    ):
        train_folds.main(arguments(work))
    for command in commands(work):
        with pytest.raises(
            UserError, match=rf"{path}: changed since demo was trained \(in all 1\)"
        ):
            command()
    train_folds.main([*arguments(work), "--fresh"])
    require_same_data(open_experiment("demo", work / "oof"))


@pytest.mark.slow
def test_files_that_were_only_touched_are_the_same(work: Path, capsys) -> None:
    for path in (work / "data/train/depth").iterdir():
        os.utime(path, ns=(5, 5))
    capsys.readouterr()
    train_folds.main(arguments(work))
    assert "fold 0: already finished, skipped" in capsys.readouterr().out
    compare.main(["demo", "second", "--oof", str(work / "oof")])


@pytest.mark.slow
def test_data_that_moved_is_asked_for_and_found_again(work: Path, capsys) -> None:
    (work / "data").rename(work / "elsewhere")
    shared = ["--oof", str(work / "oof")]
    submissions = ["--submissions", str(work / "sub")]
    predict = ["--experiment", "demo", *shared]
    asking = rf"{work}/data: the (train|test) data of demo is not there; .* --input DIR"
    for left in (False, True):  # Nothing, or the empty folder of a disk that is not mounted.
        if left:
            (work / "data").mkdir()
        for command in [*commands(work), lambda: infer.main(predict)]:
            with pytest.raises(UserError, match=asking):
                command()
    given = ["--input", str(work / "elsewhere")]
    for command in commands(work, *given):
        command()
    infer.main(["--experiment", "both", *shared, *given, *submissions])
    capsys.readouterr()
    train_folds.main(arguments(work, data="elsewhere"))  # And it is noted.
    assert "already finished" in capsys.readouterr().out
    infer.main(["--experiment", "demo", *shared, *submissions])
    assert read_json(work / "oof/demo/experiment.json")["input"] == str(work / "elsewhere")


@pytest.mark.slow
def test_a_blend_is_scored_on_the_labels_of_its_members(work: Path) -> None:
    """Also when only they were told where the data is now."""
    blend.main(["demo", "second", "--name", "both", "--oof", str(work / "oof")])
    (work / "data").rename(work / "new")
    train_folds.main(arguments(work, data="new"))
    train_folds.main(arguments(work, "name=second", "seed=7", data="new"))
    pair = ["demo", "both", "--oof", str(work / "oof")]
    with pytest.raises(UserError, match=rf"{work}/data: the train data of both is not there"):
        compare.main(pair)
    compare.main([*pair, "--input", str(work / "new")])
    shutil.copytree(work / "new", work / "data")
    path = correct_label(work)  # In the copy alone.
    with pytest.raises(UserError, match=rf"{path}: changed since demo was trained \(in all 1\)"):
        compare.main(pair)


@pytest.mark.slow
def test_a_label_corrected_between_two_folds_stops_the_second(
    work: Path, monkeypatch, capsys
) -> None:
    write_oof, right = pipeline.write_oof, (work / "data/train/label/900003.png").read_bytes()

    def write_and_correct(*given) -> None:
        write_oof(*given)
        correct_label(work)

    monkeypatch.setattr(pipeline, "write_oof", write_and_correct)
    with pytest.raises(UserError, match="fold 1 failed, 1 of 2 finished"):
        train_folds.main(arguments(work, "name=third"))
    assert "label/900003.png: changed since third was trained" in capsys.readouterr().err
    third = work / "oof/third"
    assert (third / "fold_0/fold.json").exists() and not list(third.glob("fold_1/*.pt"))
    monkeypatch.undo()
    (work / "data/train/label/900003.png").write_bytes(right)
    train_folds.main(arguments(work, "name=third"))
    assert (third / "cv.json").exists()


@pytest.mark.slow
def test_other_scenes_are_named_as_what_differs(work: Path) -> None:
    table = work / "data/scenes.csv"
    table.write_text(table.read_text().replace("900003,b,", "900003,c,"))
    with pytest.raises(UserError, match=r"begun with other data \(the scenes differ\)"):
        train_folds.main(arguments(work))


@pytest.mark.slow
def test_other_data_behind_input_is_refused(work: Path, tiny_folder, tmp_path: Path) -> None:
    tiny_folder(tmp_path / "other", [(32, 48)] * 5, list("aabbc"))
    for command in commands(work, "--input", str(tmp_path / "other")):
        with pytest.raises(UserError, match=r"no such file|changed since demo was trained"):
            command()


@pytest.mark.slow
def test_the_same_folder_by_another_name(work: Path, monkeypatch, capsys) -> None:
    (work / "link").symlink_to(work / "data")
    monkeypatch.chdir(work)
    for name in ("link", "data/", "../work/data"):
        capsys.readouterr()
        train_folds.main(arguments(work, data=name))
        assert "fold 1: already finished, skipped" in capsys.readouterr().out
    assert read_json(work / "oof/demo/experiment.json")["input"] == str(work / "data")


def test_an_untouched_file_is_not_read_again(tmp_path: Path, monkeypatch) -> None:
    paths = {name: tmp_path / name for name in "abc"}
    for name, path in paths.items():
        path.write_text(name)
    first = describe_all(paths, {})
    with monkeypatch.context() as patch:
        hashing = "nyuseg.data.fingerprint.sha256_file"
        patch.setattr(hashing, lambda path: pytest.fail(f"read {path}"))
        assert describe_all(paths, first) == first
    os.utime(paths["a"], ns=(1, 1))
    paths["b"].write_text("x")  # As large as before.
    os.utime(paths["b"], ns=(2, 2))
    now = describe_all(paths, first)
    assert differences(first, now) == ["b"] and now["a"][2] == first["a"][2]
    assert digest({**now, "b": first["b"]}) == digest(first) != digest(now)
    moved = {name: path.rename(tmp_path / f"{name}.moved") for name, path in paths.items()}
    assert digest(describe_all(moved, {})) == digest(now)
    with pytest.raises(UserError, match=r"a: no such file"):
        describe_all(paths, first)
    assert differences(first, {"a": first["a"], "d": first["b"]}) == ["b", "c", "d"]


@pytest.mark.slow
def test_the_cache_and_two_experiments_hash_a_file_once(tiny_folder, tmp_path, monkeypatch) -> None:
    from nyuseg.data import fingerprint

    tiny_folder(tmp_path / "data", [(32, 48)] * 6, list("aabbcc"))
    read = []
    original = fingerprint.sha256_file
    monkeypatch.setattr(fingerprint, "sha256_file", lambda p: read.append(p) or original(p))
    train_folds.main(arguments(tmp_path))
    train_folds.main(arguments(tmp_path, "name=second"))
    assert sorted(read) == sorted((tmp_path / "data/train").glob("*/*.png"))
    assert set(read_json(tmp_path / "oof/demo" / FILES)["files"]) >= {
        "image/900001",
        "label/900006",
    }
