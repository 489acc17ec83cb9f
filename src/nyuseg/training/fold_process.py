"""A fold trained by a process of its own: how it is started, listened to and stopped."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO

from nyuseg.data.fold_names import Fold
from nyuseg.experiment.folder import Experiment
from nyuseg.utils.errors import UserError
from nyuseg.utils.locks import only_writer
from nyuseg.utils.signals import POLL_S

SHOW_S = 10.0  # Between two lines of progress.
LAST_WORDS_S = 10.0
RELEASED_S = 150.0  # The lock of a dead machine, on a disk that several mount.
# What a process says besides, and should be known of each fold.
TOLD = ("warning", "out of memory", "frame cache", "/dev/shm")
PROGRESS = re.compile(r"^fold \S+ (.*?): (\d+/\d+), (.*) left$")


@dataclass(frozen=True)
class Job:
    """A fold of an experiment that is to be trained. named: whether its label names both."""

    experiment: Experiment
    fold: Fold
    named: bool = False

    @property
    def result(self) -> Path:
        """What the fold's lock protects, as an absolute path."""
        return self.experiment.locked(self.fold).resolve()

    @property
    def label(self) -> str:
        """How lines about it begin: `fold 3`, or `exp060 fold 3`."""
        return f"{self.experiment.config.name} " * self.named + f"fold {self.fold}"

    def is_finished(self) -> bool:
        """Whether nothing is left to train; then a line says so."""
        finished = self.experiment.is_finished(self.fold)
        if finished:
            print(f"{self.label}: already finished, skipped")
        return finished

    def command(self, script: Path) -> list[str]:
        """What trains it: train_folds.py with the configuration that its experiment keeps."""
        folder = self.experiment.folder.resolve()
        words = [str(script), "--part", "--fold", str(self.fold)]
        words += ["--config", str(folder / "config.yaml"), "--oof", str(folder.parent)]
        return [*words, "--input", str(self.experiment.input.resolve())]


@dataclass
class FoldProcess:
    """A process that trains a fold, as start made it.

    place: which of the devices is its own. told: its last lines of stderr; doing: its progress.
    """

    label: str
    process: subprocess.Popen[str]
    place: int = 0
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
        own = f"fold {self.label.split()[-1]}"
        if line.startswith(own):
            line = self.label + line.removeprefix(own)
        elif any(word in line for word in TOLD):
            line = f"{self.label}: {line}"
        else:
            return
        sys.stdout.write(f"{line}\n")  # At once: print writes twice, and others between.
        sys.stdout.flush()

    def _note(self, line: str) -> None:
        if found := PROGRESS.match(line):
            self.doing = f"{found[1]} {found[2]}"
        else:
            self.told.append(line)

    def fault(self) -> str | None:
        """What it said of its failure, in a line, once it has ended; None when all went well."""
        for reader in self.readers:  # What it said last.
            reader.join(LAST_WORDS_S)
        if not self.process.returncode:
            return None
        errors = [line for line in self.told if line.startswith("error: ")]
        if not errors and self.process.returncode < 0:
            name = signal.Signals(-self.process.returncode).name
            return f"killed by {name}{', perhaps for want of memory' * (name == 'SIGKILL')}"
        last = errors[-1].removeprefix("error: ") if errors else " ".join(list(self.told)[-1:])
        return last or f"ended with code {self.process.returncode}"

    def stop(self) -> None:
        """Ask it to stop where it is safe. A terminal has asked it already: what comes within a
        moment counts once, see signals."""
        self.process.send_signal(signal.SIGTERM)


def _each_line(pipe: IO[str], hear: Callable[[str], object]) -> None:
    for line in pipe:
        hear(line.rstrip("\n"))


def start(
    command: Sequence[str],
    label: str,
    environment: Mapping[str, str],
    place: int = 0,
    cwd: Path | None = None,
) -> FoldProcess:
    """Run a Job's command with this Python, in an environment; it ends when this process does."""
    process = subprocess.Popen(
        [sys.executable, *command],
        env=dict(environment),
        cwd=cwd,
        stdin=subprocess.PIPE,  # Held open until this process is gone, see follow_parent.
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    started = FoldProcess(label, process, place)
    started.listen()
    return started


def run_on_node(command: Sequence[str], label: str, result: Path, cwd: Path) -> str | None:
    """A task of a cluster: train a fold by a process on this node; returns FoldProcess.fault.

    result: what its lock protects; cwd: what relative paths of its configuration begin at. One that
    was begun on a node that died is gone on with.
    """
    if fault := _wait_for(result):
        return fault
    fold = start(command, label, os.environ, cwd=cwd)
    shown, said = time.monotonic(), fold.doing
    try:
        while fold.process.poll() is None:
            time.sleep(POLL_S)
            if fold.doing != said and time.monotonic() - shown > SHOW_S:
                shown, said = time.monotonic(), fold.doing
                print(f"{label} {said}", file=sys.stderr, flush=True)
    except BaseException:
        fold.stop()
        fold.process.wait()
        raise
    return fold.fault()


def _wait_for(result: Path) -> str | None:
    """Wait until no other process writes a result: what a dead task started takes a while to end.

    Returns who still does after RELEASED_S.
    """
    end = time.monotonic() + RELEASED_S
    while True:
        try:
            with only_writer(result):
                return None
        except UserError as error:
            if time.monotonic() > end:
                return str(error)
        time.sleep(POLL_S)


def follow_parent() -> None:
    """In such a process: stop, as by a signal, when the one that started it is gone."""

    def wait() -> None:
        # Not by Python's stdin, whose lock a reading process, when it is forked, would wait for.
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=wait, daemon=True).start()
