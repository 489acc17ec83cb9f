"""Output that nobody reads, paths and characters that few expect, folders that share a name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import infer
import train_folds
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, read_json

SETTINGS = ["model.encoder=tu-test_resnet", "data.size=[32,48]", "folds.count=3"]
SETTINGS += ["train.epochs=1", "train.batch_size=2"]


def arguments(data: Path, oof: Path) -> list[str]:
    config = ["--config", str(PROJECT / "configs/demo.yaml")]
    settings = [f"--set={text}" for text in SETTINGS]
    return ["--fold", "all", *config, "--input", str(data), "--oof", str(oof), *settings]


def script(name: str, *words: str) -> list[str]:
    return [sys.executable, "-u", str(PROJECT / "src" / name), *words]


def six_frames(tiny_folder, root: Path) -> None:
    tiny_folder(root, [(32, 48)] * 6, list("aabbcc"), [(32, 48)] * 2)


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_end_a_training(tiny_folder, tmp_path: Path) -> None:
    six_frames(tiny_folder, tmp_path / "data")
    command = script("train_folds.py", *arguments(tmp_path / "data", tmp_path / "oof"))
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as run:
        assert run.stdout.readline().startswith("override")
        run.stdout.close()  # As '| head -1' does.
        error = run.stderr.read()
    assert run.returncode == 0 and not error
    assert read_json(tmp_path / "oof/demo/cv.json")["images"] == 6


@pytest.mark.slow
def test_closed_streams_are_not_mixed_up_with_files(tiny_folder, tmp_path: Path) -> None:
    six_frames(tiny_folder, tmp_path / "data")
    train_folds.main(arguments(tmp_path / "data", tmp_path / "open"))
    command = script("train_folds.py", *arguments(tmp_path / "data", tmp_path / "closed"))
    run = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command])
    assert run.returncode == 0
    for path in ("demo/cv.json", "demo/folds.csv", "demo/fold_1/oof_probs.npy"):
        assert (tmp_path / "open" / path).read_bytes() == (tmp_path / "closed" / path).read_bytes()


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_an_error_with_closed_streams_is_an_exit_code(tmp_path: Path, closing: str) -> None:
    command = script("prepare_data.py", "check", "--input", str(tmp_path))
    run = subprocess.run(["sh", "-c", f'exec "$@" {closing}', "sh", *command], capture_output=True)
    assert run.returncode == 1 and b"Traceback" not in run.stderr


def test_a_full_disk_behind_the_output_ends_nothing(tiny_folder, tmp_path: Path) -> None:
    tiny_folder(tmp_path / "data", [(32, 48)] * 2)
    command = script("prepare_data.py", "check", "--input", str(tmp_path / "data"))
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE)
    assert run.returncode == 0 and not run.stderr


def test_a_terminal_without_letters_gets_escapes(tmp_path: Path) -> None:
    folder = tmp_path / "Küche"
    (folder / "train/image").mkdir(parents=True)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = script("prepare_data.py", "check", "--input", str(folder))
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "K\\xfcche/train" in run.stdout and "K\\xfcche" in run.stderr


@pytest.mark.slow
def test_folders_whose_names_are_not_utf8(tiny_folder, tmp_path: Path) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff\xe9"))
    six_frames(tiny_folder, place / "data")
    oof = ["--oof", str(place / "oof")]
    for command in (
        script("train_folds.py", *arguments(place / "data", place / "oof")),
        script("infer.py", "--experiment", "demo", "--submissions", str(place / "sub"), *oof),
        script("compare.py", "demo", *oof),
        script("prepare_data.py", "check", "--input", str(place / "data")),
    ):
        run = subprocess.run(command, capture_output=True)
        assert run.returncode == 0, run.stderr
    assert Path(read_json(place / "oof/demo/experiment.json")["input"]) == place / "data"
    assert read_json(place / "sub/demo/manifest.json")["images"] == 2


@pytest.mark.slow
def test_folds_and_experiments_do_not_share_a_submission(tiny_folder, tmp_path: Path) -> None:
    six_frames(tiny_folder, tmp_path / "data")
    train_folds.main(arguments(tmp_path / "data", tmp_path / "oof"))
    shared = ["--oof", str(tmp_path / "oof"), "--submissions", str(tmp_path / "sub")]
    for folds in ("1", "1,2", "2,1"):
        infer.main(["--experiment", "demo", "--fold", folds, *shared, "--format", "rle"])
    names = sorted(path.name for path in (tmp_path / "sub").iterdir() if path.name[0] != ".")
    assert names == ["demo_fold1", "demo_fold1-2"]
    assert list(read_json(tmp_path / "sub/demo_fold1-2/manifest.json")["folds"]) == ["1", "2"]
    # An experiment may be called like a fold of another.
    (tmp_path / "oof/demo").rename(tmp_path / "oof/demo_fold1")
    config = tmp_path / "oof/demo_fold1/config.yaml"
    config.write_text(config.read_text().replace("name: demo\n", "name: demo_fold1\n"))
    with pytest.raises(UserError, match="holds a submission of the experiment demo, not of demo_f"):
        infer.main(["--experiment", "demo_fold1", *shared, "--format", "rle"])


@pytest.mark.slow
def test_images_of_several_sizes_are_known_before_anything_is_predicted(
    tiny_folder, tmp_path: Path, monkeypatch, capsys
) -> None:
    tiny_folder(tmp_path / "data", [(32, 48)] * 6, list("aabbcc"), [(32, 48), (31, 48)])
    train_folds.main(arguments(tmp_path / "data", tmp_path / "oof"))
    shared = ["--experiment", "demo", "--oof", str(tmp_path / "oof")]
    shared += ["--submissions", str(tmp_path / "sub")]
    infer.main(shared)
    assert "images of 2 sizes (31x48, 32x48, ...): submission.npy is left out !!" in (
        capsys.readouterr().out
    )
    manifest = read_json(tmp_path / "sub/demo/manifest.json")
    assert manifest["left_out"] == ["npy"]
    assert sorted(manifest["files"]) == ["submission.csv", "submission.zip"]
    loading = "nyuseg.submission.writing.load_predictor"
    monkeypatch.setattr(loading, lambda *_: pytest.fail("too late"))
    with pytest.raises(UserError, match=r"images of 2 sizes .*use --format rle,png"):
        infer.main([*shared, "--format", "npy,rle"])
