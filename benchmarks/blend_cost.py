"""Time and memory of a blend of six experiments on 795 images at 480x640, of made-up probabilities.

It takes 3 GB of disk and some minutes to write them, which are not counted.

example:
  python benchmarks/blend_cost.py --work /tmp/blend
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "src"))

from synthetic import write_experiment, write_labels

NATIVE, IMAGES, SCENES = (480, 640), 795, 249  # As NYUv2's training images.


def prepare(work: Path, members: int, images: int) -> list[str]:
    """Write the data and the experiments that are not there yet; returns their names."""
    if not (work / "input/scenes.csv").exists():
        write_labels(work / "input", images, SCENES, NATIVE, seed=1)
    names = [f"member_{number}" for number in range(members)]
    with ProcessPoolExecutor() as pool:
        jobs = [
            pool.submit(write_experiment, work / "input", work / "oof", name, 0.8, number, NATIVE)
            for number, name in enumerate(names)
            if not (work / "oof" / name / "fold_4/fold.json").exists()
        ]
        for job in jobs:
            job.result()
    return names


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--members", type=int, default=6)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--work", metavar="DIR", help="keep what is written here, and use it again")
    options = parser.parse_args()
    with nullcontext(options.work) if options.work else tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        print(f"writing {options.members} experiments below {work}", flush=True)
        names = prepare(work, options.members, options.images)
        command = [sys.executable, str(PROJECT / "src/blend.py"), *names, "--name", "all"]
        started = time.monotonic()
        subprocess.run([*command, "--oof", str(work / "oof")], check=True)
        seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"{options.members} members x {options.images} images: {seconds:.0f} s, {peak:.2f} GB")


if __name__ == "__main__":
    main()
