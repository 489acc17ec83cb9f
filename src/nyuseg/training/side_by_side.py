"""Folds side by side on the devices of one machine: a process each, one display for all.

Folds need nothing of one another, so that this is the first way to use several devices. A processor
profits too: two folds with one thread each keep two cores busier than one fold with two threads.
"""

import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from nyuseg.models.device import gpu_count
from nyuseg.training.fold_process import SHOW_S, FoldProcess, Job, start
from nyuseg.training.pipeline import TrainEach, require_all
from nyuseg.utils.cores import cores
from nyuseg.utils.signals import POLL_S, stop_if_asked


def side_by_side(script: Path, count: int) -> TrainEach:
    """What trains folds by `script`, train_folds.py, so many at a time; see train_side_by_side.

    count: 0 for one on each GPU, or on each core without one.
    """

    def train_each(jobs: Sequence[Job]) -> None:
        if jobs:
            train_side_by_side(script, jobs, min(at_most(count), len(jobs)))

    return train_each


def at_most(count: int) -> int:
    """How many folds are trained at once, see side_by_side."""
    return count or len(gpu_names()) or cores()


def train_side_by_side(script: Path, jobs: Sequence[Job], count: int) -> None:
    """Train folds, `count` at a time. Raises UserError, when all have ended, if any failed, and
    Interrupted once a signal has stopped them.

    Each has a GPU of its own while there are enough, or an equal share of the processor's cores.
    """
    waiting, running, failed = deque(jobs), list[FoldProcess](), dict[str, str]()
    shown = time.monotonic()
    try:
        while waiting or running:
            stop_if_asked()
            while waiting and len(running) < count:
                used = {one.place for one in running}
                place = next(number for number in range(count) if number not in used)
                job = waiting.popleft()
                environment = _environment(place, count)
                running.append(start(job.command(script), job.label, environment, place))
            for ended in [one for one in running if one.process.poll() is not None]:
                running.remove(ended)
                if fault := ended.fault():
                    failed[ended.label] = fault
                    print(f"{ended.label} failed: {fault}", file=sys.stderr)
            if time.monotonic() - shown > SHOW_S and running:
                shown = time.monotonic()
                parts = [f"{one.label} {one.doing}" for one in running]
                print(" | ".join(parts), file=sys.stderr, flush=True)
            time.sleep(POLL_S)
    except BaseException:
        for one in running:
            one.stop()
        for one in running:
            one.process.wait()
        raise
    require_all(list(failed), len(jobs))


def _environment(place: int, count: int) -> dict[str, str]:
    environment = dict(os.environ)
    if gpus := gpu_names():
        environment["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    environment["LOCAL_WORLD_SIZE"] = str(count)  # As torchrun has it: readers are shared out, too.
    return environment


def gpu_names() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls each GPU; of a GPU's parts (MIG) a process sees but one."""
    count, visible = gpu_count(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return names if count and visible.startswith("MIG-") else names[:count]
