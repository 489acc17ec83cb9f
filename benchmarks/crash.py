"""Kill training and inference at random instants, go on, and compare with runs left alone.

A killed process dies by SIGKILL, from within, at a chosen event: a training step, an image read,
a file flushed, renamed or removed, before or after it happens. A share of the kills comes from
outside, by the clock, while Python starts. After each kill the same command runs again.

examples:
  python benchmarks/crash.py                       20 kills of training, 10 of inference
  python benchmarks/crash.py --kills 200 --seed 7
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "src"))

import infer
import train_folds
from nyuseg.data import frame_cache as cache
from nyuseg.data import frames
from nyuseg.demo.data import write_demo
from nyuseg.evaluation import oof
from nyuseg.training import best_epoch, optimization
from nyuseg.training import fold as fit
from nyuseg.utils import arrays
from nyuseg.utils.files import sha256_file

# What tells the time of a run is not a result: the log, and the seconds in the manifest.
LOGS = {"train.log", "progress.png"}  # They hold times.
SETTINGS = (
    "model.encoder=tu-test_resnet",
    "data.size=[32,48]",
    "train.epochs=3",
    "train.ema=0.9",
    "train.mean_last=2",
    "compute.precision=fp32",
    "folds.count=2",
    "folds.full=1",
)


@dataclass
class Tally:
    """What happened: kills by place (each followed by a resume), files compared and different."""

    kills: dict[str, int] = field(default_factory=dict)
    compared: int = 0
    differences: list[str] = field(default_factory=list)

    def count(self, place: str) -> None:
        self.kills[place] = self.kills.get(place, 0) + 1

    @property
    def total(self) -> int:
        return sum(self.kills.values())


class Countdown:
    """Counts events by place in this process, and kills it at one of them.

    note: a file; takes the counts when the command ends, or the place where it was killed.
    """

    def __init__(self, note: Path, place: str = "", at: int = -1, after: bool = False) -> None:
        self.note, self.place, self.at, self.after = note, place, at, after
        self.seen: dict[str, int] = {}

    def watch(self, owner: object, name: str, place: str) -> None:
        original = getattr(owner, name)

        def wrapper(*given: Any, **named: Any) -> Any:
            number = self.seen.get(place, 0)
            self.seen[place] = number + 1
            due = place == self.place and number == self.at
            if due and not self.after:
                self.die()
            result = original(*given, **named)
            if due:
                self.die()
            return result

        setattr(owner, name, wrapper)

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def watch_all(self) -> None:
        self.watch(optimization.TrainingStep, "__call__", "step")
        self.watch(best_epoch, "save_checkpoint", "checkpoint")
        self.watch(fit, "save_latest", "checkpoint")
        self.watch(fit, "release_weights", "release")
        self.watch(frames.FrameFolder, "read", "reading")
        self.watch(cache.FrameCache, "read", "reading from the cache")
        self.watch(oof, "write_png", "out-of-fold mask")
        self.watch(arrays.ArrayFile, "add", "out-of-fold array")
        self.watch(oof, "confusion_matrix", "pooling")
        self.watch(oof, "check_pooling", "pooling")
        for name in ("fsync", "replace", "rename", "unlink"):
            self.watch(os, name, f"file {name}")


def _child(command: Callable[[], None], countdown: Countdown) -> None:
    countdown.watch_all()
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    command()
    countdown.note.write_text(json.dumps(countdown.seen))


def run_until(command: Callable[[], None], countdown: Countdown) -> bool:
    """Run a command in a forked child, so that torch is imported once; False when killed."""
    context = multiprocessing.get_context("fork")
    child = context.Process(target=_child, args=(command, countdown))
    child.start()
    child.join()
    if child.exitcode not in (0, -signal.SIGKILL):
        raise SystemExit(f"the command failed by itself, exit code {child.exitcode}")
    return child.exitcode == 0


def kill_at_start(arguments: list[str], seconds: float) -> bool:
    """Run a script as a user does and kill it by the clock; False when it was faster."""
    child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=-3)
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return True
    return False


def fingerprint(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, by relative path; logs and measured seconds left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in LOGS:
            continue
        if path.name == "manifest.json":
            facts = {**json.loads(path.read_text()), "seconds": 0}
            found[str(path.relative_to(folder))] = hashlib.sha256(repr(facts).encode()).hexdigest()
        elif path.name == "metrics.csv":
            rows = pd.read_csv(path, dtype=str).drop(columns="seconds").to_csv()
            found[str(path.relative_to(folder))] = hashlib.sha256(rows.encode()).hexdigest()
        else:
            found[str(path.relative_to(folder))] = sha256_file(path)
    return found


def compare(expected: dict[str, str], folder: Path, tally: Tally) -> None:
    """Add the files of a finished folder, and those that differ, to the tally."""
    found = fingerprint(folder)
    tally.compared += len(expected)
    names = sorted(set(expected) | set(found))
    tally.differences += [
        f"{folder}/{name}" for name in names if found.get(name) != expected.get(name)
    ]


def crash(
    command: Callable[[Path], Callable[[], None]],
    script: Callable[[Path], list[str]],
    result: str,
    work: Path,
    kills: int,
    rng: random.Random,
    whole: Callable[[Path], None] = lambda folder: None,
) -> Tally:
    """Kill a command `kills` times over several rounds; each round's result must be the same.

    command(place) and script(place) give the command, as a call and as a command line, that
    writes into `place`; `result` is the folder below it. `whole` checks the folder after a kill.
    """
    note, tally = work / "note", Tally()
    run_until(command(work / "alone"), Countdown(note))
    events = json.loads(note.read_text())
    expected = fingerprint(work / "alone" / result)
    print(f"left alone: {sum(events.values())} events, {len(expected)} files", flush=True)
    rounds = 0
    while tally.total < kills:
        place = work / f"round_{rounds}"
        rounds += 1
        finished = False
        while not finished:
            where = rng.choice(["start-up", *events]) if tally.total < kills else ""
            if where == "start-up":
                killed = kill_at_start(script(place), rng.uniform(0.05, 6))
            else:
                at, after = rng.randrange(events.get(where, 1)), rng.random() < 0.5
                finished = run_until(command(place), Countdown(note, where, at, after))
                killed = not finished
            if killed:
                tally.count(where)
            whole(place / result)
        compare(expected, place / result, tally)
    print(f"{rounds} rounds")
    return tally


def whole_or_absent(folder: Path) -> None:
    """Raise SystemExit unless a submission folder is absent or every file is as it records."""
    if folder.exists():
        files = json.loads((folder / "manifest.json").read_text())["files"]
        for name, digest in files.items():
            if sha256_file(folder / name) != digest:
                raise SystemExit(f"{folder / name}: a half-written file under its final name")


def crash_training(work: Path, kills: int, seed: int) -> Tally:
    """Kill training of a tiny experiment (two folds and a network on all images, three epochs)."""
    write_demo(work / "data", scenes=5, frames=2, test_scenes=2, size=(48, 64), seed=1)

    def arguments(place: Path) -> list[str]:
        config = ["--config", str(PROJECT / "configs/demo.yaml")]
        folders = ["--input", str(work / "data"), "--oof", str(place)]
        return ["--fold", "all,full", *config, *folders, *(f"--set={text}" for text in SETTINGS)]

    def script(place: Path) -> list[str]:
        return [str(PROJECT / "src/train_folds.py"), *arguments(place)]

    def command(place: Path) -> Callable[[], None]:
        return lambda: train_folds.main(arguments(place))

    return crash(command, script, "demo", work, kills, random.Random(seed))


def crash_inference(work: Path, kills: int, seed: int) -> Tally:
    """Kill inference of the experiment that crash_training left alone in the same folder."""

    def arguments(place: Path) -> list[str]:
        folders = ["--oof", str(work / "alone"), "--submissions", str(place)]
        return ["--experiment", "demo", "--tta", *folders]

    def script(place: Path) -> list[str]:
        return [str(PROJECT / "src/infer.py"), *arguments(place)]

    def command(place: Path) -> Callable[[], None]:
        return lambda: infer.main(arguments(place))

    inside = work / "inference"
    inside.mkdir()
    return crash(command, script, "demo_tta", inside, kills, random.Random(seed), whole_or_absent)


def show(title: str, tally: Tally) -> None:
    """Print a tally as a small table."""
    places = ", ".join(f"{place} {count}" for place, count in sorted(tally.kills.items()))
    print(f"{title}: {tally.total} kills ({places})")
    print(f"{tally.total} resumes, {tally.compared} files compared, ", end="")
    print(f"{len(tally.differences)} differences")
    for path in tally.differences:
        print(f"  differs: {path}")


def main() -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--kills", type=int, default=20, help="of training; half for inference")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        training = crash_training(Path(folder), options.kills, options.seed)
        show("training", training)
        inference = crash_inference(Path(folder), options.kills // 2, options.seed + 1)
        show("inference", inference)
    return 1 if training.differences or inference.differences else 0


if __name__ == "__main__":
    sys.exit(main())
