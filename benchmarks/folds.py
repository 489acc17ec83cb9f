"""How much faster are folds side by side than one after another, on this machine's processor?

Trains folds of the demo by the command that a user types, in turns: one after another with all
cores, and side by side with a core each. Then once more one after another with one thread, whose
files must be those of side by side, byte for byte. Close other programs first; nine minutes on two
cores. Starting the processes takes ten seconds, which few epochs do not win back.

examples:
  python benchmarks/folds.py
  python benchmarks/folds.py --rounds 1 --epochs 10
  python benchmarks/folds.py --set data.size=[32,48]      with any setting
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from workers import cores

PROJECT = Path(__file__).resolve().parents[1]
SAME = ("weights.safetensors", "oof_probs.npy", "oof_depth.npy", "checkpoints.npz")
BAR = 1.3


def seconds(command: list[str], threads: int | None) -> float:
    """How long a command takes; threads: None for as many as it takes by itself."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment |= {"NO_ALBUMENTATIONS_UPDATE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.monotonic() - started


def different(one: Path, other: Path, folds: int) -> list[str]:
    """The files of folds that differ between two experiments."""
    names = [f"fold_{fold}/{name}" for fold in range(folds) for name in SAME]
    return [name for name in names if (one / name).read_bytes() != (other / name).read_bytes()]


def command(work: Path, data: Path, name: str, settings: list[str], folds: int) -> list[str]:
    """What trains the first folds of the demo into work/name."""
    return [
        *(sys.executable, str(PROJECT / "src/train_folds.py"), f"--fold=0..{folds - 1}"),
        *("--config", str(PROJECT / "configs/demo.yaml"), "--input", str(data)),
        *("--oof", str(work / name), *[f"--set={text}" for text in settings]),
    ]


def compare(work: Path, data: Path, settings: list[str], rounds: int) -> tuple[float, list[str]]:
    """Median ratio of the times, and the files that differ."""
    folds = min(5, cores())
    ratios = []
    for number in range(1, rounds + 1):
        times = []
        for name, words in (("one after another", []), ("side by side", ["--parallel", "auto"])):
            known = command(work, data, f"{name} {number}", settings, folds)
            times.append(seconds([*known, *words], None))
            print(f"round {number}, {folds} folds {name}: {times[-1]:.1f} s", flush=True)
        ratios.append(times[0] / times[1])
    seconds(command(work, data, "one thread", settings, folds), 1)
    return median(ratios), different(work / "one thread/demo", work / "side by side 1/demo", folds)


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--input", type=Path, help="default: the demo's rooms, made anew")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    settings = [f"train.epochs={options.epochs}", *options.set]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = options.input or work / "data"
        if not options.input:
            make = [sys.executable, PROJECT / "src/prepare_data.py", "demo", "--output", data]
            subprocess.run(make, check=True, capture_output=True)
        ratio, wrong = compare(work, data, settings, options.rounds)
    print(f"side by side is {ratio:.2f} times as fast (bar: {BAR})")
    print(f"differ: {', '.join(wrong)}" if wrong else "the files are those of one after another")
    sys.exit(1 if wrong or ratio < BAR else 0)


if __name__ == "__main__":
    main()
