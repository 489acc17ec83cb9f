"""Folds on a Ray cluster: each a task, with a GPU or some cores of a node to itself."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nyuseg.training.fold_process import Job, run_on_node
from nyuseg.training.pipeline import TrainEach, require_all
from nyuseg.utils.errors import first_line
from nyuseg.utils.ray_cluster import LOOK_S, join_cluster, require_seen, share_of
from nyuseg.utils.signals import stop_if_asked

STOP_S = 120.0


def on_ray(script: Path, address: str) -> TrainEach:
    """What trains folds by `script`, train_folds.py, on the cluster at an address, or `local`."""

    def train_each(jobs: Sequence[Job]) -> None:
        if jobs:
            train_on_ray(script, address, jobs)

    return train_each


def train_on_ray(script: Path, address: str, jobs: Sequence[Job]) -> None:
    """Train folds wherever the cluster has room. Raises UserError, when all have ended, if any
    failed, or before the first begins, for a node that does not see the data or the experiments;
    Interrupted once a signal has stopped them.

    A task whose node or process dies is run again, on another node, and goes on after the fold's
    last whole epoch. Ray passes on what the tasks print, and names process and node.
    """
    ray = join_cluster(address)
    share, cwd = share_of(ray, len(jobs)), Path.cwd()
    seen = [script, cwd, *(job.experiment.input for job in jobs)]
    require_seen(ray, share, list(dict.fromkeys(seen)), jobs[0].experiment.folder.parent)
    task = ray.remote(**share.options)(run_on_node)
    running = {
        task.options(name=job.label).remote(
            job.command(script), job.label, job.result, cwd
        ): job.label
        for job in jobs
    }
    try:
        failed = list(_failed(ray, running))
    except BaseException:
        for one in running:  # As Ctrl-C would: it ends its process, which keeps its state.
            ray.cancel(one)
        ray.wait(list(running), num_returns=len(running), timeout=STOP_S)
        raise
    require_all(failed, len(jobs))


def _failed(ray: Any, running: dict[Any, str]) -> Iterator[str]:
    """Wait for tasks, which are taken out as they end; yields the labels of those that failed."""
    while running:
        stop_if_asked()
        for ended in ray.wait(list(running), timeout=LOOK_S)[0]:
            label = running.pop(ended)
            if fault := _fault(ray, ended):
                print(f"{label} failed: {fault}", file=sys.stderr)
                yield label


def _fault(ray: Any, task: Any) -> str | None:
    """What was wrong with a task that has ended, in a line."""
    try:
        fault: str | None = ray.get(task)
    except ray.exceptions.RayError as error:
        return first_line(error)
    return fault
