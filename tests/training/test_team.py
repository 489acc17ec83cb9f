"""Several processes train one network as one process does; they end and go on together."""

import csv
import os
import platform
import signal
import subprocess
import sys
import time
import zlib
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nyuseg.config.loading import parse_config
from nyuseg.dataloading.dataset import BatchSampler, EpochSampler
from nyuseg.models.team import Team, _require_own_gpus
from nyuseg.training import pipeline
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, read_json

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def torchrun(count: int, *words: str | Path, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT / "src")}
    return subprocess.Popen(
        [*TORCHRUN, str(count), *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def finished(child: subprocess.Popen[str]) -> str:
    printed, _ = child.communicate(timeout=300)
    assert child.returncode == 0, printed
    return printed


# The batch


@pytest.mark.parametrize(("length", "batch", "size"), [(17, 4, 2), (30, 7, 3), (8, 8, 5)])
def test_processes_part_each_batch_of_one_process(length: int, batch: int, size: int) -> None:
    def batches(rank: int, size: int) -> list[list[tuple[int, int]]]:
        keys = EpochSampler(length, seed=3, fold=1)
        keys.epoch = 2
        return list(BatchSampler(keys, batch, rank, size))

    whole = batches(0, 1)
    assert len(whole) == length // batch and all(len(one) == batch for one in whole)
    parts = [batches(rank, size) for rank in range(size)]
    assert [list(chain(*each)) for each in zip(*parts, strict=True)] == whole
    assert len({index for one in whole for _, index in one}) == len(whole) * batch
    lengths = {len(one) for rank in parts for one in rank}
    assert max(lengths) - min(lengths) <= 1 and min(lengths) > 0


@pytest.mark.parametrize("count", [0, 1, 2, 11])
def test_shares_follow_one_another_and_leave_nothing_out(count: int) -> None:
    items = list(range(count))
    parts = [Team(rank, 3).share(items) for rank in range(3)]
    assert list(chain(*parts)) == items and max(map(len, parts)) - min(map(len, parts)) <= 1


# The step

STEPS = """
import sys, torch
from nyuseg.config.loading import parse_config
from nyuseg.models.network import build_model
from nyuseg.models.team import join_team
from nyuseg.training.optimization import TrainingStep

def run(team, target, kind):
    torch.manual_seed(0)
    dtype = getattr(torch, kind)
    again = kind == "float64"  # Recomputes its blocks, which the other network has none of.
    encoder = "tu-test_efficientnet" if again else "tu-test_resnet"
    config = parse_config({
        "name": "x", "data": {"size": [32, 64]},
        "model": {"encoder": encoder, "encoder_weights": None, "decoder": "unet"},
        "train": {"lr": 1e-3, "lovasz": 0.0, "clip_norm": 1.0, "ema": 0.9, "batch_size": 5},
        "compute": {"precision": "fp32", "checkpointing": again},
    }, "x")
    model = build_model(config.model, config.data, pretrained=False).to(dtype)
    step = TrainingStep(model, config.train, config.compute, torch.device("cpu"), team)
    model.train()
    step.set_rate(1e-3)
    random = torch.Generator().manual_seed(5)
    gradients = losses = None
    for number in range(20):
        label = torch.randint(0, 13, (5, 32, 64), generator=random)
        label[number % 5] = 255  # One image, and so perhaps one process, has less to learn from.
        batch = {
            "image": torch.rand(5, 4, 32, 64, generator=random).to(dtype),
            "label": label,
            "depth": torch.rand(5, 1, 32, 64, generator=random),
            "depth_valid": torch.rand(5, 1, 32, 64, generator=random) > 0.3,
        }
        found = step({key: team.share(value) for key, value in batch.items()})
        if number == 0:
            gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
            losses = found
    average = step.averages.kinds["ema"].state_dict()
    state = {"weights": model.state_dict(), "gradients": gradients, "losses": losses}
    if team.is_first:
        torch.save({**state, "ema": average}, f"{target}_{kind}.pt")

if __name__ == "__main__":
    team = join_team()
    for kind in ("float32", "float64"):
        run(team, sys.argv[1], kind)
"""


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what STEPS has saved of one process and of two."""
    work = tmp_path_factory.mktemp("steps")
    (work / "steps.py").write_text(STEPS)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT / "src")}
    alone = [sys.executable, str(work / "steps.py"), str(work / "one")]
    subprocess.run(alone, check=True, env=environment)
    finished(torchrun(2, work / "steps.py", work / "two"))
    return work


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_twenty_steps_of_two_processes_are_those_of_one(steps: Path, kind: str) -> None:
    one, two = (
        torch.load(steps / f"{name}_{kind}.pt", weights_only=True) for name in ("one", "two")
    )
    torch.testing.assert_close(two["losses"], one["losses"], atol=1e-5, rtol=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in one["gradients"].values())
    part = 1e-2 if kind == "float32" else 1e-9  # BatchNorm on a few pixels enlarges roundings.
    for name, gradient in one["gradients"].items():
        assert (two["gradients"][name] - gradient).abs().max() < part * largest, name
    if kind == "float32":  # AdamW makes a whole step of a gradient that is zero but for rounding.
        return
    for state in ("weights", "ema"):
        for name, value in one[state].items():
            torch.testing.assert_close(two[state][name], value, atol=1e-6, rtol=0)


# The run


@pytest.fixture
def work(tiny_folder, tmp_path: Path) -> Path:
    tiny_folder(tmp_path / "data", [(32, 48)] * 11, list("aabbccddeef"))
    return tmp_path


def command(work: Path, oof: str, *changes: str) -> list[str]:
    settings = ["model.encoder=tu-test_resnet", "model.decoder=unet", "data.size=[32,64]"]
    settings += ["train.batch_size=4", "train.epochs=3", "folds.count=3"]
    settings += ["compute.precision=fp32", *changes]
    return (
        [str(PROJECT / "src/train_folds.py"), "--fold", "1"]
        + ["--config", str(PROJECT / "configs/demo.yaml")]
        + ["--input", str(work / "data"), "--oof", str(work / oof)]
        + [f"--set={text}" for text in settings]
    )


def rows(work: Path, oof: str) -> list[dict[str, str]]:
    return list(csv.DictReader((work / oof / "demo/fold_1/metrics.csv").open()))


@pytest.mark.slow
def test_a_fold_of_two_processes_is_the_fold_of_one(work: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone = [sys.executable, *command(work, "one")]
    subprocess.run(alone, check=True, env=environment, capture_output=True)
    printed = finished(torchrun(2, *command(work, "two")))
    assert printed.count("epoch   3/3") == 1  # One of them speaks.
    for row, other in zip(rows(work, "one"), rows(work, "two"), strict=True):
        for key in ("train_loss", "valid_loss", "valid_miou"):
            assert float(other[key]) == pytest.approx(float(row[key]), abs=5e-3), key
    one, two = (read_json(work / oof / "demo/fold_1/fold.json") for oof in ("one", "two"))
    counts = [np.array(record["last"]["confusion"]) for record in (one, two)]
    assert counts[0].sum() == counts[1].sum()  # Each held-out image once.
    assert np.abs(counts[0] - counts[1]).sum() < 0.05 * counts[0].sum()
    ids = (work / "two/demo/fold_1/oof_ids.txt").read_text().split()
    assert ids == (work / "one/demo/fold_1/oof_ids.txt").read_text().split()


@pytest.mark.slow
def test_a_killed_process_ends_the_run_which_others_go_on_with(work: Path) -> None:
    child = torchrun(2, *command(work, "oof", "train.epochs=60"), start_new_session=True)
    for line in child.stdout:
        if "epoch   1/60" in line:
            break
    workers = [pid for pid in children(child.pid) if "train_folds" in command_of(pid)]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    begun = time.monotonic()
    printed = child.stdout.read()
    assert child.wait(60) != 0 and time.monotonic() - begun < 60
    assert "SIGKILL" in printed or "Signal 9" in printed
    epoch = len(rows(work, "oof"))
    assert epoch >= 1
    for count, epochs in ((3, 60), (1, 60)):
        more = torchrun(count, *command(work, "oof", f"train.epochs={epochs}"))
        for line in more.stdout:
            if "/60  loss" in line:
                assert int(line.split("/60")[0].rsplit(maxsplit=1)[1]) > epoch  # It went on.
                break
        else:
            pytest.fail(f"{count} processes did not go on")
        more.send_signal(signal.SIGINT)
        more.stdout.read()
        assert more.wait(60) != 0
        epoch = len(rows(work, "oof"))


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return sorted(found)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize("uuids", [("one", "one"), ("one", "other")])
def test_two_processes_on_one_gpu_are_refused(monkeypatch, uuids: tuple[str, str]) -> None:
    class Second(Team):
        def sum(self, tensor: torch.Tensor) -> torch.Tensor:
            tensor[0] = zlib.crc32(f"{platform.node()} {uuids[0]}".encode())
            return tensor

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    properties = SimpleNamespace(uuid=uuids[1])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    alike = uuids[0] == uuids[1]
    with pytest.raises(UserError, match="not a GPU for each") if alike else nullcontext():
        _require_own_gpus(Second(1, 2), 2)


def test_parts_of_a_batch_that_do_not_come_out_even_are_refused(tmp_path: Path) -> None:
    settings = {"train": {"batch_size": 6}, "compute": {"accumulate": 2}}
    config = parse_config({"name": "x", **settings}, "x")
    says = "compute.accumulate: train.batch_size=6 cannot be 2 equal parts on each of 2 processes"
    with pytest.raises(UserError, match=says):
        pipeline._train_in_team(Team(0, 2), config, [1], tmp_path, tmp_path / "oof", False)
    assert not (tmp_path / "oof").exists()


@pytest.mark.slow
def test_more_processes_than_images_in_a_batch_are_refused(work: Path) -> None:
    child = torchrun(3, *command(work, "oof", "train.batch_size=2"))
    printed, _ = child.communicate(timeout=120)
    assert child.returncode != 0
    assert "error: train.batch_size=2: too few images for 3 processes" in printed
