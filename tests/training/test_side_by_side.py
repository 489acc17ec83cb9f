"""--parallel: folds side by side leave the files of folds one after another."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train_folds
from nyuseg.data.fold_names import parse_parallel
from nyuseg.experiment.folder import open_experiment
from nyuseg.training import fold_process, side_by_side
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, read_json

SAME = ("weights.safetensors", "oof_probs.npy", "oof_depth.npy", "oof_ids.txt", "checkpoints.npz")


def arguments(work: Path, oof: str, *changes: str) -> list[str]:
    settings = ["model.encoder=tu-test_resnet", "data.size=[32,48]", "train.batch_size=2"]
    settings += ["train.epochs=2", "folds.count=3", "compute.precision=fp32", *changes]
    return (
        ["--config", str(PROJECT / "configs/demo.yaml"), "--input", str(work / "data")]
        + ["--oof", str(work / oof)]
        + [f"--set={text}" for text in settings]
    )


@pytest.fixture
def work(tiny_folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tiny_folder(tmp_path / "data", [(32, 48)] * 9, list("aabbccdde"))
    return tmp_path


def script(work: Path, oof: str, *words: str, change: str = "seed=42") -> list[str]:
    path = str(PROJECT / "src/train_folds.py")
    return [sys.executable, path, *words, *arguments(work, oof, change)]


@pytest.mark.slow
def test_the_files_are_those_of_one_fold_after_another(work: Path, capfd) -> None:
    subprocess.run(script(work, "serial", "--fold", "all"), check=True, capture_output=True)
    train_folds.main(["--fold", "all", "--parallel", "2", *arguments(work, "both")])
    printed = capfd.readouterr().out
    for fold in range(3):
        assert printed.count(f"fold {fold} epoch   2/2") == 1
        for name in SAME:
            one, other = (work / oof / f"demo/fold_{fold}/{name}" for oof in ("serial", "both"))
            assert one.read_bytes() == other.read_bytes(), (fold, name)
    masks = sorted(path.name for path in (work / "serial/demo/masks").iterdir())
    assert len(masks) == 9
    for name in masks:
        one, other = (work / oof / "demo/masks" / name for oof in ("serial", "both"))
        assert one.read_bytes() == other.read_bytes()
    one, other = (read_json(work / oof / "demo/cv.json") for oof in ("serial", "both"))
    assert (one["miou"], one["class_iou"]) == (other["miou"], other["class_iou"])
    assert printed.count("Out-of-fold scores of demo") == 1  # Pooled once.
    train_folds.main(["--fold", "all", "--parallel", "auto", *arguments(work, "both")])
    assert "fold 2: already finished, skipped" in capfd.readouterr().out


@pytest.mark.slow
def test_a_fold_that_fails_leaves_the_others_alone(work: Path, capfd) -> None:
    train_folds.main(["--fold", "2", *arguments(work, "oof")])
    says = pytest.raises(UserError, match=r"fold 1 failed, 1 of 2 finished; .* same command")
    with open_experiment("demo", work / "oof").lock(1), says:
        train_folds.main(["--fold", "all", "--parallel", "2", *arguments(work, "oof")])
    assert "fold 1 failed: " in (said := capfd.readouterr().err) and "being written by" in said
    assert open_experiment("demo", work / "oof").is_finished(0)
    train_folds.main(["--fold", "all", "--parallel", "2", *arguments(work, "oof")])
    assert (work / "oof/demo/cv.json").exists()


@pytest.mark.slow
def test_a_signal_stops_all_with_their_state_kept(work: Path) -> None:
    words = ("--fold", "0..1", "--parallel", "2")
    child = subprocess.Popen(
        script(work, "oof", *words, change="train.epochs=400"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    seen = set()
    for line in child.stdout:
        if "/400" in line:
            seen.add(line.split()[1])
        if seen == {"0", "1"}:
            break
    child.send_signal(signal.SIGINT)
    child.stdout.read()
    assert child.wait(60) == 130 and "stopped by SIGINT" in child.stderr.read()
    time.sleep(0.2)
    commands = [command_of(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [one for one in commands if os.fsencode(work / "oof") in one]
    for fold in (0, 1):
        assert (work / f"oof/demo/fold_{fold}/last.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])  # Reading processes share what they are forked from.
def test_what_a_dead_parent_leaves_stops_by_itself(work: Path, workers: int) -> None:
    words = ("--fold", "0", "--part", f"--set=compute.workers={workers}")
    child = subprocess.Popen(
        script(work, "oof", *words, change="train.epochs=400"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in child.stdout:
        if "/400" in line:
            break
    child.stdin.close()  # As when the other end's process is killed.
    child.stdout.read()
    assert child.wait(60) == 143


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("os.kill(os.getpid(), 9)", "killed by SIGKILL, perhaps for want of memory"),
        ("os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
        ("print('error: no room', file=sys.stderr); sys.exit(1)", "no room"),
        ("sys.exit(3)", "reading the data's files: 22/23, 1 s left"),
        ("", None),
    ],
)
def test_what_a_fold_died_of_is_not_its_last_progress(code: str, fault: str | None) -> None:
    said = 'print("reading the data\'s files: 22/23, 1 s left", file=sys.stderr, flush=True)'
    child = fold_process.start(["-c", f"import os, sys; {said}; {code}"], "fold 1", os.environ)
    child.process.wait()
    assert child.fault() == fault


def command_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # It has ended.
        return b""


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_what_is_no_number_of_processes_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--parallel .*: expected a number from 1 on, or auto"):
        parse_parallel(text)


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [
        (None, 3, ["0", "1", "2"]),
        ("3,1", 2, ["3", "1"]),
        ("GPU-a1,GPU-b2", 2, ["GPU-a1", "GPU-b2"]),
        ("MIG-a1,MIG-b2", 1, ["MIG-a1", "MIG-b2"]),  # Of which a process sees the first.
        ("", 0, []),
        ("MIG-a1", 0, []),
    ],
)
def test_each_fold_has_a_gpu_by_the_name_that_its_process_knows(
    monkeypatch, visible: str | None, count: int, names: list[str]
) -> None:
    monkeypatch.setattr(side_by_side, "gpu_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert side_by_side.gpu_names() == names
    given = [side_by_side._environment(place, 2).get("CUDA_VISIBLE_DEVICES") for place in range(2)]
    assert given == (names[:2] or [visible] * 2)
