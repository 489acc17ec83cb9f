"""Faults that are not the user's: full disks, dead processes, broken or malicious files."""

import builtins
import errno
import multiprocessing
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from release_facts import release_facts
from tiny_data import write_tiny_folder

import infer
from nyuseg.config.loading import parse_config
from nyuseg.config.sections import Data, Model
from nyuseg.data.folds import read_folds
from nyuseg.data.frames import list_ids
from nyuseg.experiment.fold_files import FoldFiles
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.records import WeightsRecord
from nyuseg.models.release import load_release
from nyuseg.submission.formats import read_masks
from nyuseg.training.checkpoint import load_checkpoint, load_latest, save_latest
from nyuseg.training.disk_space import free_bytes, require_space, required_bytes
from nyuseg.training.losses import LossWatch
from nyuseg.utils import files, locks
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, atomic_folder, atomic_path, remove_partial, write_bytes


def state(epoch: int, folds: str = "table") -> dict:
    values = {"model": {"w": torch.full((2,), float(epoch))}, "optimizer": {}, "scaler": {}}
    return {
        **values,
        "epoch": epoch,
        "best": {"miou": 0.5},
        "history": [],
        "halves": [],
        "folds": folds,
    }


# Checkpoints


def test_the_checkpoint_before_is_kept_and_used(tmp_path: Path, capsys) -> None:
    save_latest(FoldFiles(tmp_path), state(1))
    save_latest(FoldFiles(tmp_path), state(2))
    assert load_latest(FoldFiles(tmp_path), "table")["epoch"] == 2
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[:-300])
    assert load_latest(FoldFiles(tmp_path), "table")["epoch"] == 1
    assert f"warning: {last}: truncated" in capsys.readouterr().out
    save_latest(FoldFiles(tmp_path), state(2))
    assert load_checkpoint(tmp_path / "last.pt")["epoch"] == 2
    assert not (tmp_path / "previous.pt").exists() or load_checkpoint(tmp_path / "previous.pt")


def test_a_foreign_checkpoint_is_named_and_passed_over(tmp_path: Path, capsys) -> None:
    save_latest(FoldFiles(tmp_path), state(1))
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    (tmp_path / "last.pt").rename(tmp_path / "previous.pt")
    (tmp_path / "other.pt").rename(tmp_path / "last.pt")
    assert load_latest(FoldFiles(tmp_path), "table")["epoch"] == 1
    assert "last.pt: not the checkpoint of a fold" in capsys.readouterr().out


def test_without_any_usable_checkpoint_the_fold_stops(tmp_path: Path) -> None:
    assert load_latest(FoldFiles(tmp_path), "table") is None
    (tmp_path / "last.pt").write_bytes(b"")
    for _ in range(2):  # And again at the next start: it never begins anew in silence.
        with pytest.raises(UserError, match="no checkpoint can be used, --fresh begins anew"):
            load_latest(FoldFiles(tmp_path), "table")
    save_latest(FoldFiles(tmp_path), state(1, "another"))
    with pytest.raises(UserError, match="another fold table"):
        load_latest(FoldFiles(tmp_path), "table")


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_refused_not_run(tmp_path: Path, how: str) -> None:
    path, target = tmp_path / "last.pt", tmp_path / "exploded"
    if how == "torch":
        torch.save({"model": Bomb(target)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(UserError, match=r"last\.pt: .*not a checkpoint of plain tensors"):
        load_checkpoint(path)
    assert not target.exists()
    pickle.loads(pickle.dumps(Bomb(target)))  # The bomb is live: unpickling does run it.
    assert target.exists()


def test_release_weights_that_are_a_folder_or_absent(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"weights\.json: no such file"):
        load_release(FoldFiles(tmp_path), Model(), Data())
    files.write_json(tmp_path / "weights.json", {})
    with pytest.raises(UserError, match=r"weights\.json: lacks fold, epoch, best, "):
        load_release(FoldFiles(tmp_path), Model(), Data())
    WeightsRecord(**release_facts(), sha256="").write(tmp_path / "weights.json")
    (tmp_path / "weights.safetensors").mkdir()
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        load_release(FoldFiles(tmp_path), Model(), Data())


# Files


def test_an_exception_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "cv.json"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_bytes(b"ne")
        raise RuntimeError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_remains_of_a_killed_process_are_removed_by_name(tmp_path: Path) -> None:
    for name in ("a.png", "a.png", "ab.png", "cv.json"):
        child = os.fork()
        if child == 0:
            with atomic_path(tmp_path / name):
                os._exit(0)  # As after SIGKILL: nothing is tidied up.
        os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 4
    remove_partial(tmp_path, {"a.png"})
    assert len(list(tmp_path.iterdir())) == 2
    remove_partial(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with atomic_folder(folder, "mark") as temporary:
        (temporary / "mark").write_text("old")
        (temporary / "old.csv").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(folder, "mark") as temporary:
        (temporary / "new.csv").write_text("half")
        raise RuntimeError
    assert sorted(path.name for path in folder.iterdir()) == ["mark", "old.csv"]
    with atomic_folder(folder, "mark") as temporary:
        (temporary / "mark").write_text("new")
    assert [path.read_text() for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("years of work")
    with (
        pytest.raises(UserError, match="will not be replaced"),
        atomic_folder(tmp_path / "thesis", "mark"),
    ):
        pass
    assert (tmp_path / "thesis/chapter.txt").exists()


def test_after_a_kill_between_two_renames_the_old_folder_comes_back(tmp_path: Path) -> None:
    (tmp_path / ".demo.old.partial").mkdir()
    (tmp_path / ".demo.old.partial/mark").write_text("old")
    for stale in (".demo.x1y2.partial", ".demo.v2.x1y2.partial"):
        (tmp_path / stale).mkdir()
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "demo", "mark"):
        raise RuntimeError
    # demo.v2 is another submission, perhaps in the making beside this one.
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".demo.v2.x1y2.partial", "demo"]
    assert (tmp_path / "demo/mark").read_text() == "old"


@pytest.mark.parametrize("call", ["write_bytes", "fsync"])
def test_a_full_disk_keeps_the_old_file_and_says_what_is_missing(tmp_path, monkeypatch, call):
    path = tmp_path / "last.pt"
    write_bytes(path, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((Path, call) if call == "write_bytes" else (os, call)), full)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9e9, 9e9, 1e6))
    with pytest.raises(UserError, match=r"last\.pt: the disk is full, 4\.0 MB are missing"):
        write_bytes(path, bytes(5_000_000))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A 3 MB file system of its own, where the machine allows a user to mount one."""
    script = """
mount -t tmpfs -o size=3m none "$1" || exit 42
cd "$1" && "$2" -c '
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from nyuseg.utils.files import write_bytes
from nyuseg.utils.errors import UserError
write_bytes(Path("last.pt"), b"a" * 2_000_000)
try:
    write_bytes(Path("last.pt"), b"b" * 2_000_000)
except UserError as error:
    print(error)
whole = Path("last.pt").read_bytes() == b"a" * 2_000_000
print(whole, [path.name for path in Path().iterdir()])
' "$3"
"""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare on this machine; the test above injects the same error")
    command = [unshare, "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    done = subprocess.run(
        [*command, str(tmp_path), sys.executable, str(PROJECT / "src")],
        capture_output=True,
        text=True,
    )
    if done.returncode == 42 or "unshare" in done.stderr:
        pytest.skip("this machine lets no user mount; the test above injects the same error")
    message, rest = done.stdout.splitlines()
    assert message.startswith("last.pt: the disk is full, ") and "MB are missing" in message
    assert rest == "True ['last.pt']"


def experiment(folder: Path, root: Path | None = None, **values) -> Experiment:
    import pandas as pd

    config = parse_config({"name": "x", **values}, "test")
    ids = [f"{i:06d}" for i in range(10)]
    table = pd.DataFrame({"image_id": ids, "scene": ids, "fold": [i % 5 for i in range(10)]})
    return Experiment(folder, config, table, root or folder)


def test_too_little_space_stops_before_the_first_step(tmp_path: Path, monkeypatch) -> None:
    exp060 = experiment(tmp_path, compute={"cache": None})
    need = required_bytes([(exp060, [0, 1, 2, 3, 4])])
    assert 4e9 < need < 9e9  # 45.7 million weights, 31 times 4 bytes.
    assert required_bytes([(exp060, [0])]) < need / 2
    monkeypatch.setattr("nyuseg.training.disk_space.free_bytes", lambda _: int(1e9))
    with pytest.raises(UserError, match=r"5 folds need about .* GB, 1\.00 GB are free"):
        require_space([(exp060, [0, 1, 2, 3, 4])])
    require_space([(exp060, [])])
    averages = {"ema": 0.99, "mean_last": 2}
    averaged = experiment(tmp_path, compute={"cache": None}, train=averages)
    more = required_bytes([(averaged, [0, 1, 2, 3, 4])]) / need
    assert more == pytest.approx(45 / 31, rel=1e-3)  # Both, in each fold and each checkpoint.
    assert free_bytes(tmp_path) > 0


def test_space_is_asked_for_all_experiments_together(tmp_path: Path, monkeypatch) -> None:
    write_tiny_folder(tmp_path, [(30, 40)] * 10)
    one, other = (experiment(tmp_path / "oof" / name, root=tmp_path) for name in "ab")
    alone = required_bytes([(one, [0, 1])])
    cache = alone - required_bytes([(experiment(tmp_path, compute={"cache": None}), [0, 1])])
    assert cache > 0
    # Both read the one cache, and, one after another, are as one with all the folds.
    pair = required_bytes([(one, [0, 1]), (other, [2, 3])])
    assert alone < pair == required_bytes([(one, [0, 1, 2, 3])]) < 2 * alone - cache
    assert required_bytes([(one, [0, 1]), (other, [])]) == alone
    # Side by side each fold has files of its own that are gone when it is finished.
    working = required_bytes([(one, [0, 1])], at_once=2) - alone
    assert working > 0.2 * (alone - cache)
    assert required_bytes([(one, [0, 1]), (other, [2, 3])], at_once=3) == pair + 2 * working
    assert required_bytes([(one, [0, 1])], at_once=8) == alone + working
    monkeypatch.setattr("nyuseg.training.disk_space.free_bytes", lambda _: alone)
    require_space([(one, [0, 1])])
    with pytest.raises(UserError, match=r"oof: 3 folds need about"):
        require_space([(one, [0, 1]), (other, [1])])


def test_the_estimate_covers_what_a_run_writes(trained_size: tuple[int, int]) -> None:
    written, estimated = trained_size
    assert written <= estimated < 4 * written


@pytest.fixture(scope="module")
def trained_size(tmp_path_factory) -> tuple[int, int]:
    import train_folds
    from nyuseg.demo.data import write_demo
    from nyuseg.experiment.folder import open_experiment

    work = tmp_path_factory.mktemp("space")
    write_demo(work / "data", scenes=4, frames=2, test_scenes=1, size=(48, 64))
    settings = ["model.encoder=tu-test_resnet", "data.size=[48,64]", "train.epochs=1"]
    averages = ["train.ema=0.9", "train.mean_last=1"]
    options = [f"--set={text}" for text in (*settings, *averages, "folds.count=2")]
    config = str(PROJECT / "configs/demo.yaml")
    folders = ["--config", config, "--input", str(work / "data"), "--oof", str(work / "oof")]
    train_folds.main(["--fold", "all", *folders, *options])
    written = sum(p.stat().st_size for p in (work / "oof").rglob("*") if p.is_file())
    shutil.rmtree(work / "oof/.cache")  # As before the run: it was written, too.
    return written, required_bytes([(open_experiment("demo", work / "oof"), [0, 1])])


# One writer


def hold(folder: Path, ready, forever: bool) -> None:
    with locks.only_writer(folder):
        ready.set()
        if forever:
            time.sleep(60)


def test_a_second_writer_is_told_who_the_first_is_and_a_dead_one_is_replaced(tmp_path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    first = context.Process(target=hold, args=(tmp_path / "fold_0", ready, True))
    first.start()
    assert ready.wait(60)
    expected = f"being written by process {first.pid} on {socket.gethostname()}"
    with pytest.raises(UserError, match=expected), locks.only_writer(tmp_path / "fold_0"):
        pass
    with locks.only_writer(tmp_path / "fold_1"):  # Another fold is free.
        pass
    first.kill()
    first.join()
    assert (tmp_path / ".locks/fold_0").exists()  # It had no time to tidy up.
    with locks.only_writer(tmp_path / "fold_0"):
        assert str(os.getpid()) in (tmp_path / ".locks/fold_0").read_text()
    assert not list((tmp_path / ".locks").iterdir())


def hold_with_a_child(folder: Path, ready) -> None:
    with locks.only_writer(folder):
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(20,)).start()
        ready.set()
        time.sleep(60)


def test_reading_processes_of_a_dead_holder_do_not_keep_its_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    first = context.Process(target=hold_with_a_child, args=(tmp_path / "fold_0", ready))
    first.start()
    assert ready.wait(60)
    first.kill()
    first.join()
    with locks.only_writer(tmp_path / "fold_0"):
        pass


# Numbers gone wrong


def test_the_first_bad_step_is_remembered_with_its_images() -> None:
    watch = LossWatch(torch.device("cpu"))
    for step, loss in enumerate([1.0, 2.0, float("nan"), float("inf"), 1.0]):
        watch.see(torch.tensor(loss), [f"image {step}"])
    assert watch.bad_step(True) == 2 and watch.ids[2] == ["image 2"]


def test_finite_losses_pass() -> None:
    watch = LossWatch(torch.device("cpu"))
    watch.see(torch.tensor(1e30), ["a"])
    assert watch.bad_step(True) is None


# Names


def test_names_that_leave_their_folder_are_refused(tiny_folder, tmp_path: Path) -> None:
    table = tmp_path / "folds.csv"
    for name in ("../000001", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", '"a\nb"'):
        table.write_text(f"image_id,scene,fold\n{name},a,0\nok,b,1\n")
        with pytest.raises(UserError, match=r"folds\.csv: .* cannot be the id of an image"):
            read_folds(table)
    tiny_folder(tmp_path, [(8, 8)])
    image = next((tmp_path / "train/image").iterdir())
    image.rename(image.with_name("a\nb.png"))
    with pytest.raises(UserError, match=r"'a\\nb' cannot be the id of an image"):
        list_ids(tmp_path, "train")
    for name in ("../x", "a b", "a;rm", "<b>", "küche"):
        with pytest.raises(UserError, match="is not a safe name"):
            infer.main(["--experiment", name])


def test_zip_members_are_never_written_and_strange_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "submission.zip"
    picture = np.zeros((4, 4), np.uint8)
    from nyuseg.data.frames import encode_png

    for name in ("../evil.png", "/evil.png", "sub/000001.png"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, encode_png(picture))
        with pytest.raises(UserError, match="not expected"):
            list(read_masks(path, {"000001": (4, 4)}))
    assert [p.name for p in tmp_path.iterdir()] == ["submission.zip"]


def test_a_command_offered_to_the_user_is_quoted(tmp_path: Path) -> None:
    from nyuseg.data.integrity import require_clean

    with pytest.raises(UserError, match=r"--input '.*\$\(touch x\)'"):
        require_clean(tmp_path / "$(touch x)")


def test_code_in_yaml_is_refused(tmp_path: Path, monkeypatch) -> None:
    from nyuseg.config.loading import load_config

    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:builtins.open [exploded, w]\n")
    monkeypatch.setattr(builtins, "open", lambda *_: pytest.fail("code in YAML was run"))
    with pytest.raises(UserError, match=r"evil\.yaml: not valid YAML"):
        load_config(path)
