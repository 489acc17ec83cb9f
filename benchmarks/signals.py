"""Send signals to training and inference at random moments and count what goes wrong.

Each run is stopped once: by SIGINT or SIGTERM, to the process alone or, as a terminal does, to its
reading processes as well. It must end with 128 plus the signal's number and one line on the screen,
and what it leaves must do to go on from. Some runs start as a user starts them, the others are
forked, so that hundreds take minutes.

examples:
  python benchmarks/signals.py                     100 signals
  python benchmarks/signals.py --signals 500 --seed 7
"""

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "src"))
os.environ["OMP_NUM_THREADS"] = "1"  # A forked process cannot use threads that its parent began.

import infer
import train_folds
from nyuseg.data.folds import fold_hash
from nyuseg.demo.data import write_demo
from nyuseg.experiment.fold_files import FoldFiles
from nyuseg.experiment.folder import open_experiment
from nyuseg.training.checkpoint import load_latest
from nyuseg.utils import cli
from nyuseg.utils.errors import UserError

SETTINGS = (
    *("model.encoder=tu-test_resnet", "data.size=[32,48]", "folds.count=2", "compute.workers=2"),
    *("train.batch_size=2", "compute.precision=fp32"),
)
TERMINATES = 1 << (signal.SIGTERM - 1)
LONGEST_S = 120  # From the signal to the end; seconds are usual, but the machine may be busy.


@dataclass
class Tally:
    """How many signals were sent, how many runs had ended before, and what went wrong."""

    sent: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """A command to stop: its script, its arguments, and a check of what it leaves."""

    script: Callable[[Sequence[str] | None], None]
    arguments: list[str]
    check: Callable[[], None]


def forked(target: Target, screen: Path) -> BaseProcess:
    """Start a command in a forked child, a process group of its own; its output goes to a file."""

    def child() -> None:
        os.setsid()
        handle = os.open(screen, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(handle, stream)
        cli.run(target.script, target.arguments)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def catches(pid: int) -> bool:
    """Whether a process has its own handler of SIGTERM already, as Linux tells."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    caught = next((line for line in lines if line.startswith("SigCgt:")), "SigCgt: 0")
    return bool(int(caught.split()[1], 16) & TERMINATES)


def send(pid: int, rng: random.Random) -> tuple[int, str]:
    """Stop a process, or its whole group; returns the signal and to whom it went."""
    number, group = rng.choice([signal.SIGINT, signal.SIGTERM]), rng.random() < 0.5
    (os.killpg if group else os.kill)(pid, number)
    return number, "group" if group else "process"


def judge(target: Target, number: int, code: int | None, screen: str) -> str:
    """What is wrong with how a run ended, '' when nothing is."""
    if code is None:
        return "did not end"
    if code != 128 + number:
        return f"exit code {code}: the signal was lost"
    lines = screen.strip().splitlines() or [""]
    if "run the same command again" not in lines[-1] or "Traceback" in screen:
        return "no plain last line, or a traceback"
    try:
        target.check()
    except UserError as error:
        return f"what it left cannot be used: {error}"
    return ""


def stop_once(target: Target, place: Path, fresh: bool, rng: random.Random, tally: Tally) -> None:
    """Start a command, stop it after a random while, judge its end."""
    screen = place / "screen.txt"
    if fresh:
        with screen.open("w") as file:
            command = [sys.executable, str(Path(target.script.__code__.co_filename))]
            process: subprocess.Popen[bytes] | BaseProcess = subprocess.Popen(
                [*command, *target.arguments], stdout=file, stderr=file, start_new_session=True
            )
    else:
        process = forked(target, screen)
    end = process.wait if isinstance(process, subprocess.Popen) else process.join
    latest = 6.0 if fresh else 0.8
    assert process.pid is not None
    while not catches(process.pid):
        time.sleep(0.001)
    time.sleep(rng.uniform(0, latest))
    number, whom = send(process.pid, rng)
    tally.sent += 1
    with suppress(subprocess.TimeoutExpired):
        end(LONGEST_S)
    code = process.returncode if isinstance(process, subprocess.Popen) else process.exitcode
    text = screen.read_text()
    what = judge(target, number, code, text)
    if code is None:
        process.kill()
        end()
    if what:
        name = signal.Signals(number).name
        tally.faults.append(f"{target.script.__module__}, {name} to the {whom}: {what}\n{text}")


def targets(work: Path) -> list[Target]:
    """A training that takes longer than any wait here, and an inference in a loop of its own."""
    write_demo(work / "data", scenes=5, frames=2, test_scenes=15, size=(48, 64), seed=1)
    shared = ["--config", str(PROJECT / "configs/demo.yaml"), "--input", str(work / "data")]
    options = [f"--set={text}" for text in SETTINGS]
    oof = ["--oof", str(work / "oof")]
    train = ["--fold", "all", *shared, *options]
    with redirect_stdout(None):
        train_folds.main([*train, *oof, "--set=train.epochs=1"])
    endless = ["--set=train.epochs=100000", "--set=name=endless"]

    def resumes() -> None:
        folder = work / "oof/endless"
        if (folder / "experiment.json").exists():
            table = open_experiment("endless", work / "oof").table
            load_latest(FoldFiles(folder / "fold_0"), fold_hash(table))

    def again(argv: Sequence[str] | None) -> None:
        while True:
            infer.main(argv)

    def whole() -> None:
        folder = work / "submissions/demo_tta"
        if folder.exists() and not (folder / "manifest.json").exists():
            raise UserError(f"{folder}: a part of a submission")

    again.__module__ = "infer"
    submissions = ["--experiment", "demo", "--tta", "--submissions", str(work / "submissions")]
    return [
        Target(train_folds.main, [*train, *oof, *endless], resumes),
        Target(again, [*submissions, *oof, "--set=compute.workers=2"], whole),
    ]


def main() -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--signals", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, tally = random.Random(options.seed), Tally()
    with tempfile.TemporaryDirectory() as folder:
        training, inference = targets(Path(folder))
        for number in range(options.signals):
            fresh = number % 25 == 0
            target = training if fresh or number % 3 else inference
            stop_once(target, Path(folder), fresh, rng, tally)
    print(f"{tally.sent} signals, {len(tally.faults)} faults")
    print("\n".join(tally.faults))
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
