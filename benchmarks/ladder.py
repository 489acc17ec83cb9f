"""Which ingredients of a recipe earn their place? One at a time on a base, over seeds and folds.

Trains `configs/nyuv2_small.yaml` at a smaller size, and each ingredient of ladder_arms.py on top of
it, with the command that a user calls, with one thread, several side by side. Each seed is tried on
a fold of its own, so that what differs between two of them is both the training's noise and the
rooms'. The score is that of the last epoch (or of the average of the weights), never of the best
one, on the rooms that were held out. What is finished, below --work or in
benchmarks/nyuv2_small/ladder.npz, which `keep` writes, is not done again, and what was cut goes on.

Two processors round differently, which moves a score as much as an ingredient does: runs of one
machine are compared with one another, and those of another are done again.

An ingredient that costs time gets fewer epochs, so that all arms take the same CPU seconds of
training; the table says how many each took.

examples:
  python benchmarks/ladder.py run --work /tmp/ladder --input /data/nyuv2 --jobs 2
  python benchmarks/ladder.py run --work /tmp/ladder --input /data/nyuv2 --only base --only lovasz
  python benchmarks/ladder.py table --work /tmp/ladder --to best
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ladder_arms import COMMON, INGREDIENTS

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "src"))

from nyuseg.evaluation.metrics import mean_iou
from nyuseg.utils.arrays import write_npz
from nyuseg.utils.files import find, read_json, write_json

KEPT = PROJECT / "benchmarks/nyuv2_small/ladder.npz"
CONFIG = PROJECT / "configs/nyuv2_small.yaml"
FOLDS, MOST = 5, 10  # Of the folds of a split; of the seeds that an arm may have.
# What the others are compared with, and by which checkpoint: the one that its file predicts with.
REFERENCES = {"base": "last", "best": "ema"}
# An arm that is further than this below the base with its first seed gets no others.
HOPELESS = 0.03
KINDS = ("last", "ema")
Result = dict[str, np.ndarray]  # cpu_seconds, machine, and the int64 [13,13] of each kind.
NOT_NOTED = "a machine that was not noted"  # Of the first runs in KEPT.


@dataclass(frozen=True)
class Run:
    """One training of the ladder."""

    work: Path
    arm: str
    seed: int
    fold: int

    @property
    def experiment(self) -> str:
        plain = "".join(c if c.isalnum() else "_" for c in self.arm)
        return f"{plain}_s{self.seed}"

    @property
    def name(self) -> str:
        return f"{self.experiment}_f{self.fold}"

    @property
    def result(self) -> Path:
        """Appears when the run is finished."""
        return self.work / "results" / f"{self.name}.npz"

    @property
    def folder(self) -> Path:
        return self.work / "oof" / self.experiment / f"fold_{self.fold}"

    def write_result(self, seconds: float) -> float:
        """Keep what it scored, summed over the held-out images; returns the last epoch's mIoU."""
        found: Result = {"cpu_seconds": np.array(seconds), "machine": np.array(machine())}
        with np.load(self.folder / "checkpoints.npz") as file:
            found |= {kind: file[kind].sum(0, dtype=np.int64) for kind in KINDS}
        self.result.parent.mkdir(parents=True, exist_ok=True)
        write_npz(self.result, found)
        return float(mean_iou(found["last"]))


Results = dict[str, dict[Run, Result]]  # By machine.


def machine() -> str:
    """The processor and what rounds on it, such as `AMD EPYC (25, 1), AVX2, torch 2.9.1`."""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    kind = f"({facts.get('cpu family', '?')}, {facts.get('model', '?')})"
    name = facts.get("model name", "processor")
    return f"{name} {kind}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def all_runs(work: Path, count: int, only: Sequence[str] = ()) -> list[Run]:
    """Seed by seed, so that a ladder that is cut has every arm up to some seed."""
    arms = [arm for arm in INGREDIENTS if not only or any(map(arm.lower().startswith, only))]
    return [Run(work, arm, n + 1, n % FOLDS) for n in range(count) for arm in arms]


def is_hopeless(run: Run, results: Mapping[Run, Result]) -> bool:
    """Whether this is a further seed of an arm whose first was far below the base's."""
    base, own = (results.get(replace(run, arm=arm, seed=1, fold=0)) for arm in ("base", run.arm))
    if run.seed == 1 or base is None or own is None:
        return False
    score = max(mean_iou(own[kind]) for kind in KINDS)
    return bool(score < mean_iou(base["last"]) - HOPELESS)


def read_results(work: Path) -> Results:
    """Of all runs that are finished, in KEPT or, later, below `work`."""
    runs = {run.name: run for run in all_runs(work, MOST)}
    kept: dict[str, Result] = defaultdict(dict)
    for key, value in read_npz(KEPT).items() if KEPT.exists() else ():
        place, _, part = key.rpartition("/")
        kept[place][part] = value
    done = [(runs.get(place.partition("@")[0]), result) for place, result in kept.items()]
    done += [(run, read_npz(run.result)) for run in runs.values() if run.result.exists()]
    found: Results = defaultdict(dict)
    for run, result in done:
        if run is not None:  # Of an arm that there is still.
            found[str(result.get("machine", NOT_NOTED))][run] = result
    return found


def keep(work: Path) -> None:
    """Gather all results in KEPT, which is small enough to be committed."""
    flat: Result = {}
    for where, results in read_results(work).items():
        own = hashlib.sha256(where.encode()).hexdigest()[:8]
        for run, result in results.items():
            flat |= {f"{run.name}@{own}/{key}": value for key, value in result.items()}
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    write_npz(KEPT, flat)


def read_npz(path: Path) -> Result:
    with np.load(path) as file:
        return dict(file)


def train(run: Run, data: Path, settings: Sequence[str]) -> None:
    """Train one fold of one arm unless that is done or vain; exits, naming its log, if it fails."""
    results = read_results(run.work)[machine()]
    if run in results or is_hopeless(run, results):
        return
    changes = [*COMMON, *settings, *INGREDIENTS[run.arm]]
    changes += [f"seed={run.seed}", f"name={run.experiment}"]
    command = [sys.executable, str(PROJECT / "src/train_folds.py"), "--fold", str(run.fold)]
    command += ["--config", str(CONFIG), "--input", str(data), "--oof", str(run.work / "oof")]
    command += [part for change in changes for part in ("--set", change)]
    log = run.work / "logs" / f"{run.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    seconds = call(command, log, run.work / "cpu" / f"{run.name}.json")
    score = run.write_result(seconds)
    for name in ("last.pt", "previous.pt", "best.pt"):
        (run.folder / name).unlink(missing_ok=True)
    print(f"{run.arm}, seed {run.seed}, fold {run.fold}: {score:.4f}, {seconds:.0f} s", flush=True)


def call(command: Sequence[str], log: Path, spent: Path) -> float:
    """Run a command; returns the CPU seconds that it and its earlier attempts took, which `spent`
    keeps. Exits, naming the log, when it fails."""
    before = float(read_json(spent)["seconds"]) if spent.exists() else 0.0
    spent.parent.mkdir(parents=True, exist_ok=True)
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


def table(results: Mapping[Run, Result], reference: str = "base") -> pd.DataFrame:
    """A row for each arm and kind of checkpoint, over the seeds that it and the reference have.

    miou is that of all folds' rooms pooled; difference, the mean over the seeds of how much it
    exceeds the reference's own, see REFERENCES. Its standard error takes the variance between seeds
    from all arms together, since a few of one arm say little about it, and is NaN without two of
    any.
    """
    by_arm = {a: {run.seed: r for run, r in results.items() if run.arm == a} for a in INGREDIENTS}
    base, rows, found = by_arm[reference], [], []
    compared = REFERENCES[reference]
    for arm, own in by_arm.items():
        seeds = sorted(base.keys() & own.keys())
        for kind in KINDS if seeds else ():
            over = [mean_iou(own[s][kind]) - mean_iou(base[s][compared]) for s in seeds]
            miou = float(mean_iou(np.sum([own[s][kind] for s in seeds], 0)))
            seconds, usual = (sum(float(a[s]["cpu_seconds"]) for s in seeds) for a in (own, base))
            rows.append({"arm": arm, "checkpoint": kind, "miou": miou, "cpu": seconds / usual})
            found.append(np.array(over))
    spread = [(d - d.mean()) ** 2 for d in found if d.any()]
    degrees = sum(len(d) - 1 for d in spread)
    noise = np.concatenate(spread).sum() / degrees if degrees else np.nan
    for row, d in zip(rows, found, strict=True):
        row["difference"], row["error"] = d.mean(), np.sqrt(noise / len(d))
        row["seeds"] = " ".join(f"{value:+.4f}" for value in d)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table", "keep"))
    parser.add_argument("--work", required=True, type=Path, help="folder for what is trained")
    parser.add_argument("--input", default=str(PROJECT / "input"), metavar="DIR")
    parser.add_argument("--seeds", type=int, default=3, help="how many of them, up to 10")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--only", action="append", default=[], help="ingredients that begin so")
    parser.add_argument("--to", choices=REFERENCES, default="base", help="what to compare with")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for all arms")
    options = parser.parse_args()
    only = [name.lower() for name in options.only]
    if not all_runs(options.work, options.seeds, only):
        raise SystemExit(f"--only: no ingredient begins so; there are: {', '.join(INGREDIENTS)}")
    if options.what == "run":
        runs, data = all_runs(options.work, options.seeds, only), find(options.input)
        with ThreadPoolExecutor(options.jobs) as workers:
            list(workers.map(lambda run: train(run, data, options.set), runs))
    elif options.what == "keep":
        keep(options.work)
    for where, results in read_results(options.work).items():
        rows = table(results, options.to)
        print(f"\n{where}:")
        print(rows.to_string(index=False, float_format="%.4f") if len(rows) else "no such run")


if __name__ == "__main__":
    main()
