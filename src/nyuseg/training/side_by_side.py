"""Folds side by side on the devices of one machine: a process each, one display for all.

Folds need nothing of one another, so that this is the first way to use several devices. A processor
profits too: two folds with one thread each keep two cores busier than one fold with two threads.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Thread
from typing import IO

import torch

from nyuseg.data.fold_names import Fold
from nyuseg.dataloading.loader import cores
from nyuseg.experiment.folder import Experiment
from nyuseg.training.pipeline import TrainEach
from nyuseg.utils.errors import UserError
from nyuseg.utils.signals import POLL_S, stop_if_asked

SHOW_S = 10.0  # Between two lines of progress.
LAST_WORDS_S = 10.0
# What a process says besides, and should be known of each fold.
TOLD = ("warning", "out of memory", "frame cache", "/dev/shm")
PROGRESS = re.compile(r"^fold \S+ (.*?): (\d+/\d+), (.*) left$")


@dataclass
class Child:
    """A process that trains a fold. told: its last lines of stderr; doing: its progress."""

    fold: Fold
    place: int
    process: subprocess.Popen[str]
    readers: list[Thread] = field(default_factory=list)
    told: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    doing: str = "begins"

    def listen(self) -> None:
        """Read what it prints, as it comes: lines about its fold are passed on."""
        assert self.process.stdout and self.process.stderr
        for pipe, hear in ((self.process.stdout, self._say), (self.process.stderr, self._note)):
            reader = Thread(target=_each_line, args=(pipe, hear), daemon=True)
            reader.start()
            self.readers.append(reader)

    def _say(self, line: str) -> None:
        if not line.startswith(f"fold {self.fold}"):
            if not any(word in line for word in TOLD):
                return
            line = f"fold {self.fold}: {line}"
        sys.stdout.write(f"{line}\n")  # At once: print writes twice, and others between.
        sys.stdout.flush()

    def _note(self, line: str) -> None:
        if found := PROGRESS.match(line):
            self.doing = f"{found[1]} {found[2]}"
        else:
            self.told.append(line)

    def fault(self) -> str:
        """What it said of its failure, in a line."""
        errors = [line for line in self.told if line.startswith("error: ")]
        last = errors[-1].removeprefix("error: ") if errors else " ".join(list(self.told)[-1:])
        return last or f"ended with code {self.process.returncode}"


def _each_line(pipe: IO[str], hear: Callable[[str], object]) -> None:
    for line in pipe:
        hear(line.rstrip("\n"))


def side_by_side(command: Sequence[str], count: int | None) -> TrainEach:
    """What trains folds by `command --fold K`, so many at a time; see train_side_by_side.

    count: None for one on each GPU, or on each core without one.
    """

    def train_each(experiment: Experiment, folds: Sequence[Fold], _: torch.device) -> None:
        todo = [fold for fold in folds if not experiment.is_finished(fold)]
        for fold in folds:
            if fold not in todo:
                print(f"fold {fold}: already finished, skipped")
        most = count or torch.cuda.device_count() or cores()
        train_side_by_side(command, todo, min(most, len(todo)))

    return train_each


def train_side_by_side(command: Sequence[str], folds: Sequence[Fold], count: int) -> None:
    """Run `command --fold K` for each fold, `count` at a time. Raises UserError, when all have
    ended, if any failed, and Interrupted once a signal has stopped them.

    Each has a GPU of its own while there are enough, or an equal share of the processor's cores.
    """
    waiting, running, failed = deque(folds), list[Child](), dict[Fold, str]()
    shown = time.monotonic()
    try:
        while waiting or running:
            stop_if_asked()
            while waiting and len(running) < count:
                used = {child.place for child in running}
                place = next(number for number in range(count) if number not in used)
                running.append(_start(command, waiting.popleft(), place, count))
            for child in [one for one in running if one.process.poll() is not None]:
                running.remove(child)
                for reader in child.readers:  # What it said last.
                    reader.join(LAST_WORDS_S)
                if child.process.returncode:
                    failed[child.fold] = child.fault()
                    print(f"fold {child.fold} failed: {failed[child.fold]}", file=sys.stderr)
            if time.monotonic() - shown > SHOW_S and running:
                shown = time.monotonic()
                parts = [f"fold {child.fold} {child.doing}" for child in running]
                print(" | ".join(parts), file=sys.stderr, flush=True)
            time.sleep(POLL_S)
    except BaseException:
        _stop(running)
        raise
    if failed:
        done = len(folds) - len(failed)
        names = ", ".join(str(fold) for fold in failed)
        raise UserError(
            f"fold {names} failed, {done} of {len(folds)} finished; what was wrong stands above, "
            "and the same command trains what is missing"
        )


def _start(command: Sequence[str], fold: Fold, place: int, count: int) -> Child:
    environment = dict(os.environ)
    if gpus := torch.cuda.device_count():
        visible = environment.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))
        environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[place % gpus]
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // count)))
    environment["LOCAL_WORLD_SIZE"] = str(count)  # As torchrun has it: readers are shared out, too.
    child = Child(
        fold,
        place,
        subprocess.Popen(
            [*command, "--fold", str(fold)],
            env=environment,
            # It ends with this process, see follow_parent.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        ),
    )
    child.listen()
    return child


def follow_parent() -> None:
    """In such a process: stop, as by a signal, when the one that started it is gone."""

    def wait() -> None:
        # Not by Python's stdin, whose lock a reading process, when it is forked, would wait for.
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=wait, daemon=True).start()


def _stop(running: Sequence[Child]) -> None:
    """Ask all to stop where it is safe, and wait for them. A terminal has asked them already: what
    comes within a moment counts once, see signals."""
    for child in running:
        child.process.send_signal(signal.SIGTERM)
    for child in running:
        child.process.wait()
