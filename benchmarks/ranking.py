"""Does a leaky validation rank models? Small experiments, each with folds by scene and at random.

Trains them all on the demo rooms with the commands that a user calls, then compares the
out-of-fold score of each with the score of its single folds on the hidden test rooms (their mean:
one network against one network), and prints how well either split ranks the experiments, and by
how much it flatters them. What is finished below --work is not done again.

examples:
  python benchmarks/ranking.py --work /tmp/ranking            half an hour on one core
  python benchmarks/ranking.py --work /tmp/try --set data.size=[64,64] --set train.epochs=1
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "src"))

from nyuseg.evaluation.leaderboard import score_submission
from nyuseg.utils.files import find, read_json

FOLDS = 3
COMMON = ("data.size=[96,128]", "train.epochs=10", f"folds.count={FOLDS}")
EXPERIMENTS = {
    "base": (),
    "short": ("train.epochs=3",),
    "rgb": ("data.channels=[rgb]", "model.depth_head=false"),
    "plain": ("augment.flip=0", "augment.shift=0", "augment.scale=0", "augment.rotate=0"),
    "coarse": ("data.size=[64,96]",),
    "slow": ("train.lr=0.0002",),
}
GROUPS = ("scene", "random")


def call(script: str, log: Path, *options: str) -> None:
    """Run an entry script, its output to the end of a log. Exits, naming the log, when it fails."""
    with log.open("a") as file:
        command = [sys.executable, str(PROJECT / "src" / script), *options]
        if subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode:
            raise SystemExit(f"{script} failed: see {log}")


def measure(work: Path, data: Path, name: str, group: str, changes: Sequence[str]) -> list[float]:
    """Train one experiment and predict the test rooms with each fold: OOF and hidden mIoU."""
    full, log = f"{name}_{group}", work / f"{name}_{group}.log"
    changes = [*changes, f"folds.group={group}", f"name={full}"]
    settings = [part for change in changes for part in ("--set", change)]
    oof, config = ["--oof", str(work / "oof")], str(PROJECT / "configs/demo.yaml")
    given = ["--fold", "all", "--config", config, "--input", str(data)]
    call("train_folds.py", log, *given, *oof, *settings)
    hidden = []
    for fold in range(FOLDS):
        folder = work / "submissions" / f"{full}_fold{fold}"
        if not folder.exists():  # It appears when it is whole.
            where = ["--submissions", str(folder.parent), "--format", "npy", *oof]
            call("infer.py", log, "--experiment", full, "--fold", str(fold), *where)
        hidden.append(score_submission(folder, data / "test_label")["miou"])
    return [read_json(work / "oof" / full / "cv.json")["miou"], float(np.mean(hidden))]


def summary(rows: pd.DataFrame) -> str:
    """The table and what follows from it. Columns: (group, oof | hidden), rows: experiments."""
    lines = [
        f"{'':12}{'out-of-fold mIoU':>20}{'hidden, mean single fold':>28}",
        f"{'experiment':12}{'scene':>10}{'random':>10}{'scene':>18}{'random':>10}",
    ]
    for name, row in rows.iterrows():
        oof, hidden = ([row[group, kind] for group in GROUPS] for kind in ("oof", "hidden"))
        lines.append(f"{name:12}{oof[0]:10.4f}{oof[1]:10.4f}{hidden[0]:18.4f}{hidden[1]:10.4f}")
    lines += ["", f"{'folds':12}{'rank correlation OOF, hidden':>30}{'mean of OOF - hidden':>24}"]
    for group in GROUPS:
        oof, hidden = rows[group, "oof"], rows[group, "hidden"]
        rank = oof.corr(hidden, method="spearman")
        lines.append(f"{group:12}{rank:30.2f}{(oof - hidden).mean():+24.4f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", required=True, type=Path, help="folder for what is trained")
    parser.add_argument("--input", default=str(PROJECT / "input/demo"), metavar="DIR")
    parser.add_argument(
        "--set", action="append", default=[], help="KEY=VALUE for all, before their own changes"
    )
    options = parser.parse_args()
    work, data = options.work, find(options.input)
    work.mkdir(parents=True, exist_ok=True)
    rows = {}
    for name, own in EXPERIMENTS.items():
        changes = (*COMMON, *options.set, *own)
        found: dict[tuple[str, str], float] = {}
        for group in GROUPS:
            oof, hidden = measure(work, data, name, group, changes)
            print(
                f"{name}, folds by {group}: {oof:.4f} out-of-fold, {hidden:.4f} hidden", flush=True
            )
            found |= {(group, "oof"): oof, (group, "hidden"): hidden}
        rows[name] = found
    print("\n" + summary(pd.DataFrame.from_dict(rows, orient="index")))


if __name__ == "__main__":
    main()
