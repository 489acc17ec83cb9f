"""Reading processes: those that die, those that find no room, those that stay."""

import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from nyuseg.config.loading import parse_config
from nyuseg.data.frames import FrameFolder
from nyuseg.dataloading import loader
from nyuseg.dataloading.dataset import PredictionSet
from nyuseg.dataloading.loader import iterate, make_loader
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT

CPU = torch.device("cpu")
DATA = parse_config({"name": "x", "data": {"size": [32, 48]}}, "test").data
Usage = namedtuple("Usage", "total used free")


class Dying(PredictionSet):
    """Frames whose reading kills the process, as the system does when memory runs out."""

    deadly = (2,)

    def __getitem__(self, index: int):
        sample = super().__getitem__(index)
        if index in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample


class AllDying(Dying):
    deadly = (2, 3, 4, 5)


def test_a_worker_that_dies_names_what_it_read(tiny_folder, tmp_path: Path) -> None:
    ids = tiny_folder(tmp_path, [(32, 48)] * 4)
    frames = Dying(FrameFolder(tmp_path, "train"), ids, DATA)
    with pytest.raises(UserError, match=ids[2]) as caught:
        list(iterate(make_loader(frames, 1, 1, CPU)))
    assert "DataLoader worker" in str(caught.value) and "compute.workers=0" in str(caught.value)


class Failing(PredictionSet):
    def __getitem__(self, index: int):
        raise RuntimeError("a fault of the program")


def test_a_fault_in_a_worker_is_not_taken_for_its_death(tiny_folder, tmp_path: Path) -> None:
    frames = Failing(FrameFolder(tmp_path, "train"), tiny_folder(tmp_path, [(32, 48)]), DATA)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        list(iterate(make_loader(frames, 1, 1, CPU)))


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError, FileNotFoundError])
def test_a_connection_that_breaks_is_a_death(tiny_folder, tmp_path, monkeypatch, error) -> None:
    """As when a worker dies while it hands over the memory of a batch."""
    ids = tiny_folder(tmp_path, [(32, 48)] * 2)

    def broken(_):
        raise error
        yield

    monkeypatch.setattr(loader, "_begin", broken)
    frames = PredictionSet(FrameFolder(tmp_path, "train"), ids, DATA)
    with pytest.raises(UserError, match="a DataLoader worker died"):
        list(iterate(make_loader(frames, 1, 1, CPU)))


@pytest.mark.parametrize("workers", [2, 4])
def test_several_workers_that_die_at_once_end_the_run(tiny_folder, tmp_path, workers: int) -> None:
    ids = tiny_folder(tmp_path, [(32, 48)] * 8)
    frames = AllDying(FrameFolder(tmp_path, "train"), ids, DATA)
    with pytest.raises(UserError, match="DataLoader worker") as caught:
        list(iterate(make_loader(frames, 1, workers, CPU)))
    assert any(image_id in str(caught.value) for image_id in ids[2:6])
    assert not active_children()


def test_a_worker_that_dies_between_two_epochs_ends_the_run(tiny_folder, tmp_path: Path) -> None:
    ids = tiny_folder(tmp_path, [(32, 48)] * 6)
    frames = PredictionSet(FrameFolder(tmp_path, "train"), ids, DATA)
    kept = make_loader(frames, 1, 2, CPU)
    assert len(list(iterate(kept))) == 6
    for worker in active_children():
        worker.kill()
        worker.join()
    with pytest.raises(UserError, match="DataLoader worker"):
        list(iterate(kept))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_live_as_long_as_their_loader(tiny_folder, tmp_path: Path, method: str) -> None:
    ids = tiny_folder(tmp_path, [(32, 48)] * 5)
    frames = PredictionSet(FrameFolder(tmp_path, "train"), ids, DATA)
    kept = make_loader(frames, 2, 2, CPU, multiprocessing_context=method)
    seen = []
    for _ in range(3):
        assert [i for batch in iterate(kept) for i in batch["id"]] == ids
        seen.append({worker.pid for worker in active_children()})
    assert len(seen[0]) == 2 and seen[0] == seen[1] == seen[2]


@pytest.mark.slow
def test_a_fold_starts_its_workers_once_however_they_start(tiny_folder, tmp_path: Path) -> None:
    tiny_folder(tmp_path / "data", [(32, 48)] * 6, ["a", "a", "b", "b", "c", "c"])
    code = f"""
import multiprocessing, sys
from multiprocessing import active_children
sys.path.insert(0, {str(PROJECT / "src")!r})
import train_folds
from nyuseg.training import fold as fit
def note(*_):
    print("workers", sorted(child.pid for child in active_children()))
if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    fit.EpochLog.epoch = note
    settings = ["model.encoder=tu-test_resnet", "data.size=[32,48]", "compute.workers=1"]
    settings += ["train.batch_size=2", "train.epochs=3", "folds.count=2"]
    train_folds.main([
        "--fold", "0", "--config", {str(PROJECT / "configs/demo.yaml")!r},
        "--input", {str(tmp_path / "data")!r}, "--oof", {str(tmp_path / "oof")!r},
        *(f"--set={{text}}" for text in settings),
    ])
"""
    script = tmp_path / "train.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("workers")]
    # One that reads for training, one for validation.
    assert len(lines) == 3 and len(set(lines)) == 1 and lines[0].count(",") == 1


def test_with_little_shared_memory_fewer_processes_read(
    tiny_folder, tmp_path: Path, monkeypatch, capsys
) -> None:
    ids = tiny_folder(tmp_path, [(32, 48)] * 4)
    frames = PredictionSet(FrameFolder(tmp_path, "train"), ids, DATA)
    monkeypatch.setattr(loader, "SHARED", tmp_path)
    batch = 4 * 6 * 32 * 48
    for batches, workers in ((100, 8), (12, 3), (3, 0)):
        usage = Usage(0, 0, int(batch * batches / loader.PART * loader.AHEAD / 4))
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        assert make_loader(frames, 4, 8, CPU).num_workers == workers
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 and "enough for 3 of 8 reading processes; a" in printed[0]
    assert "enough for 0 of 8 reading processes, so the main process reads" in printed[1]


@pytest.mark.slow
def test_shared_memory_that_is_full_ends_the_run_in_one_line(tiny_folder, tmp_path: Path) -> None:
    """A /dev/shm of 1 MB of its own, where the machine allows a user to mount one."""
    ids = tiny_folder(tmp_path, [(320, 480)] * 8)
    code = f"""
import sys
sys.path.insert(0, {str(PROJECT / "src")!r})
from pathlib import Path
import torch
from nyuseg.dataloading import loader
from nyuseg.utils.cli import run
from nyuseg.config.loading import parse_config
from nyuseg.dataloading.dataset import PredictionSet
from nyuseg.data.frames import FrameFolder
def main(argv):
    loader.PART = 1000  # As if another run had taken the room in the meantime.
    data = parse_config({{"name": "x", "data": {{"size": [320, 480]}}}}, "test").data
    frames = PredictionSet(FrameFolder(Path({str(tmp_path)!r}), "train"), {ids!r}, data)
    list(loader.iterate(loader.make_loader(frames, 2, 2, torch.device("cpu"))))
run(main)
"""
    shell = 'mount -t tmpfs -o size=1m none /dev/shm || exit 42; exec "$@"'
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare on this machine")
    command = [unshare, "--user", "--map-root-user", "--mount", "sh", "-c", shell, "sh"]
    done = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode == 42 or "unshare" in done.stderr:
        pytest.skip("this machine lets no user mount")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: /dev/shm: no room for a batch; use --set compute.workers=0"
    )
    assert len(done.stderr.splitlines()) == 1


def test_an_error_in_a_worker_is_one_line(tiny_folder, tmp_path: Path) -> None:
    ids = tiny_folder(tmp_path, [(32, 48)] * 8)
    broken = tmp_path / "train/depth" / f"{ids[5]}.png"
    broken.write_bytes(broken.read_bytes()[:120])
    (tmp_path / "test").mkdir()
    for kind in ("image", "depth"):
        shutil.copytree(tmp_path / "train" / kind, tmp_path / "test" / kind)
    code = f"""
import sys
sys.path.insert(0, {str(PROJECT / "src")!r})
from pathlib import Path
import torch
from nyuseg.utils.cli import run
from nyuseg.config.loading import parse_config
from nyuseg.dataloading.dataset import PredictionSet
from nyuseg.data.frames import FrameFolder
from nyuseg.dataloading.loader import iterate, make_loader
def main(argv):
    data = parse_config({{"name": "x", "data": {{"size": [32, 48]}}}}, "test").data
    frames = PredictionSet(FrameFolder(Path({str(tmp_path)!r}), "test"), {ids!r}, data)
    list(iterate(make_loader(frames, 2, 2, torch.device("cpu"))))
run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}/test/depth/{ids[5]}.png: truncated")
    assert len(done.stderr.splitlines()) == 1
