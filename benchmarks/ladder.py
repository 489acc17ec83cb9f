"""Which ingredients of a recipe earn their place? One at a time on a base, over seeds and folds.

Trains `configs/nyuv2_small.yaml` at a smaller size, and each INGREDIENT on top of it, with the
command that a user calls: for each of three seeds, on two folds by room, with one thread, several
side by side. What is finished below --work is not done again, and what was cut goes on. The score
is that of the last epoch (or of the average of the weights), never of the best one, on the rooms
that were held out.

An ingredient that costs time gets fewer epochs, so that all arms take the same CPU seconds of
training; the table says how many each took.

examples:
  python benchmarks/ladder.py run --work /tmp/ladder --input /data/nyuv2 --jobs 2
  python benchmarks/ladder.py run --work /tmp/ladder --input /data/nyuv2 --only base --only lovasz
  python benchmarks/ladder.py table --work /tmp/ladder
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "src"))

from nyuseg.data.folds import NYUV2_SCENES
from nyuseg.evaluation.bootstrap import resample
from nyuseg.evaluation.metrics import mean_iou
from nyuseg.utils.files import find, read_json, write_json

CONFIG = PROJECT / "configs/nyuv2_small.yaml"
SEEDS, FOLDS = (1, 2, 3), (0, 1)
COMMON = ("data.size=[96,128]", "train.epochs=8", "train.lr=0.006", "train.ema=0.99")
# Written down before any of them was run, but for the learning rate: three were tried first, with
# one seed, and the base has the best of them. The first is what the others are compared with. The
# number of epochs is what costs as many CPU seconds as the base's, found by timing single steps.
INGREDIENTS: dict[str, tuple[str, ...]] = {
    "base": (),
    # Optimisation.
    "lr 6e-4": ("train.lr=0.0006",),
    "lr 2e-3": ("train.lr=0.002",),
    "lr 2e-2": ("train.lr=0.02",),
    "cosine by step, warm-up": ("train.schedule=cosine", "train.warmup=0.5"),
    "batch of 4": ("train.batch_size=4", "train.epochs=7"),
    "encoder at lr x 0.3": ("train.encoder_lr=0.3",),
    "gradients clipped to 1": ("train.clip_norm=1",),
    "weight decay .05, not on vectors": ("train.weight_decay=0.05", "train.decay_all=false"),
    # Losses.
    "Lovasz 0.5": ("train.lovasz=0.5", "train.epochs=5"),
    "Dice 0.5": ("train.dice=0.5",),
    "label smoothing 0.1": ("train.label_smoothing=0.1",),
    "auxiliary head 0.4": ("train.aux_loss=0.4", "train.epochs=7"),
    # Depth.
    "RGB alone": ("data.channels=[rgb]", "model.depth_head=false"),
    "no depth head": ("model.depth_head=false",),
    "depth filters from zero": ("model.input_init=zeros",),
    "depth branch": ("model.fusion=branch",),
    "two streams, 4 epochs": ("model.fusion=two_stream", "train.epochs=4"),
    "holes, noise, no depth at times": (
        "augment.depth_holes=0.3",
        "augment.depth_noise=1",
        "augment.depth_drop=0.1",
    ),
    # Decoder.
    "FPN": ("model.decoder=fpn", "train.epochs=7"),
    # Augmentation.
    "flip alone": ("augment.shift=0", "augment.scale=0", "augment.rotate=0"),
    "zoom 0.75 to 1.5": ("augment.zoom=[0.75,1.5]", "augment.shift=0", "augment.scale=0"),
    "zoom 0.5 to 2": ("augment.zoom=[0.5,2]", "augment.shift=0", "augment.scale=0"),
    "crops of half the area, 13 epochs": ("augment.crop=[64,96]", "train.epochs=13"),
    "colour 0.5": ("augment.colour=0.5",),
    "copy-paste 0.5": ("augment.copy_paste=0.5",),
    # Losses again: weights.
    "boundary weight 2": ("train.boundary_weight=2",),
    "square-root class weights": (
        "train.class_weights=[0.981,2.512,1.528,1,0.587,0.481,0.512,1.303,1.199,1.06,2.474,0.379,0.843]",
    ),
    # Not at equal cost: how much training the base still wants.
    "half the epochs": ("train.epochs=4",),
    "twice the epochs": ("train.epochs=16",),
}
KINDS = ("last", "ema")


@dataclass(frozen=True)
class Run:
    """One training of the ladder."""

    work: Path
    arm: str
    seed: int
    fold: int

    @property
    def name(self) -> str:
        plain = "".join(c if c.isalnum() else "_" for c in self.arm)
        return f"{plain}_s{self.seed}"

    @property
    def result(self) -> Path:
        """Appears when the run is finished: its CPU seconds and the epochs."""
        return self.work / "results" / f"{self.name}_f{self.fold}.json"

    @property
    def folder(self) -> Path:
        return self.work / "oof" / self.name / f"fold_{self.fold}"

    def confusions(self, kind: str) -> np.ndarray:
        """Of each held-out image, int64 [n,13,13]."""
        with np.load(self.folder / "checkpoints.npz") as file:
            return file[kind].astype(np.int64)

    def scenes(self) -> list[str]:
        ids = (self.folder / "oof_ids.txt").read_text().split()
        table = pd.read_csv(NYUV2_SCENES, dtype=str).set_index("image_id")["scene"]
        return [str(scene) for scene in table[ids]]


def all_runs(work: Path, only: Sequence[str] = ()) -> list[Run]:
    """Seed by seed, so that a ladder that is cut has every arm up to some seed."""
    arms = [arm for arm in INGREDIENTS if not only or any(map(arm.lower().startswith, only))]
    return [Run(work, arm, seed, fold) for seed in SEEDS for arm in arms for fold in FOLDS]


def train(run: Run, data: Path, settings: Sequence[str]) -> None:
    """Train one fold of one arm, unless it is done; exits, naming its log, when that fails."""
    if run.result.exists():
        return
    changes = [*COMMON, *settings, *INGREDIENTS[run.arm], f"seed={run.seed}", f"name={run.name}"]
    command = [sys.executable, str(PROJECT / "src/train_folds.py"), "--fold", str(run.fold)]
    command += ["--config", str(CONFIG), "--input", str(data), "--oof", str(run.work / "oof")]
    command += [part for change in changes for part in ("--set", change)]
    log = run.work / "logs" / f"{run.name}_f{run.fold}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    seconds = _call(command, log, run.work / "cpu" / f"{run.name}_f{run.fold}.json")
    for name in ("last.pt", "previous.pt", "best.pt"):
        (run.folder / name).unlink(missing_ok=True)
    run.result.parent.mkdir(exist_ok=True)
    score = float(mean_iou(run.confusions("last").sum(0)))
    write_json(run.result, {"cpu_seconds": seconds, "miou": score})
    print(f"{run.arm}, seed {run.seed}, fold {run.fold}: {score:.4f}, {seconds:.0f} s", flush=True)


def _call(command: Sequence[str], log: Path, spent: Path) -> float:
    """Run a command; returns the CPU seconds that it and its earlier attempts took, which `spent`
    keeps. Exits, naming the log, when it fails."""
    before = float(read_json(spent)["seconds"]) if spent.exists() else 0.0
    spent.parent.mkdir(exist_ok=True)
    with log.open("a") as file:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        while True:  # Noted on the way, too: this process may be stopped.
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            seconds = before + (usage.ru_utime + usage.ru_stime if pid else _so_far(child.pid))
            write_json(spent, {"seconds": seconds})
            if pid:
                break
            time.sleep(2)
    if status:
        raise SystemExit(f"{log.stem}: see {log}")
    return seconds


def _so_far(pid: int) -> float:
    """CPU seconds of a running process, from its line in /proc; see proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def confusions(runs: Sequence[Run], seed: int, kind: str) -> tuple[np.ndarray, list[str]]:
    """Of the held-out images of all folds, int64 [n,13,13], and the scene of each."""
    own = [run for run in runs if run.seed == seed]
    scenes = [scene for run in own for scene in run.scenes()]
    return np.concatenate([run.confusions(kind) for run in own]), scenes


def compare(arm: Sequence[Run], base: Sequence[Run], seed: int, kind: str) -> np.ndarray:
    """By how much an arm's mIoU exceeds that of the base's last epochs: measured, then on 2000
    draws of rooms."""
    scores = []
    for runs, which in ((arm, kind), (base, "last")):
        found, scenes = confusions(runs, seed, which)
        pooled = np.concatenate([found.sum(0)[None], resample(found, scenes, 2000)])
        scores.append(mean_iou(pooled))
    return np.asarray(scores[0] - scores[1])


def table(work: Path) -> pd.DataFrame:
    """A row for each arm and kind of checkpoint: the mean over the seeds that are complete.

    The standard error adds the variance over draws of rooms to that of the training noise, which
    is taken from the seeds of all arms together: three of one arm say little about it. It is NaN
    as long as no arm has two seeds.
    """
    by_arm = {arm: [run for run in all_runs(work) if run.arm == arm] for arm in INGREDIENTS}
    base, rows, found = by_arm["base"], [], {}
    for arm, runs in by_arm.items():
        done = [seed for seed in SEEDS if _is_done(runs, seed) and _is_done(base, seed)]
        for kind in KINDS if done else ():
            found[arm, kind] = np.array([compare(runs, base, seed, kind) for seed in done])
            scores = [mean_iou(confusions(runs, seed, kind)[0].sum(0)) for seed in done]
            cost = _cost(runs, done) / _cost(base, done)
            rows.append({"arm": arm, "checkpoint": kind, "miou": np.mean(scores), "cpu": cost})
    several = [d[:, 0].var(ddof=1) for d in found.values() if len(d) > 1 and d.any()]
    noise = np.mean(several) if several else np.nan
    for row, d in zip(rows, found.values(), strict=True):
        row["difference"] = d[:, 0].mean()
        row["error"] = np.sqrt(d[:, 1:].mean(0).var() + noise / len(d))
        row["seeds"] = " ".join(f"{value:+.4f}" for value in d[:, 0])
    return pd.DataFrame(rows)


def _is_done(runs: Sequence[Run], seed: int) -> bool:
    return all(run.result.exists() for run in runs if run.seed == seed)


def _cost(runs: Sequence[Run], seeds: Sequence[int]) -> float:
    return sum(float(read_json(run.result)["cpu_seconds"]) for run in runs if run.seed in seeds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--work", required=True, type=Path, help="folder for what is trained")
    parser.add_argument("--input", default=str(PROJECT / "input"), metavar="DIR")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--only", action="append", default=[], help="ingredients that begin so")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for all arms")
    options = parser.parse_args()
    only = [name.lower() for name in options.only]
    if not all_runs(options.work, only):
        raise SystemExit(f"--only: no ingredient begins so; there are: {', '.join(INGREDIENTS)}")
    if options.what == "run":
        data = find(options.input)
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda run: train(run, data, options.set), all_runs(options.work, only)))
    print(table(options.work).to_string(index=False, float_format="%.4f"))


if __name__ == "__main__":
    main()
