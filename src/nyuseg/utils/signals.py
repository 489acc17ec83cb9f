"""Stopping by signal: a handler only takes note; the loops ask where it is safe to stop.

Python runs a handler between any two instructions, within an import, a fork's callback or a
destructor. What it raises there may be lost or leave something half done, so it raises nothing.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

# A terminal and a parent such as 'make' may both pass one wish on; later it is a second one.
SAME_WISH_S = 0.5
POLL_S = 0.1
STOPPING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived; `code` is the exit code, 128 plus the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


_noted: tuple[int, float] | None = None


def catch_signals() -> None:
    """From now on SIGINT and SIGTERM are noted, for stop_if_asked; a second one ends at once."""
    global _noted
    _noted = None
    for number in STOPPING:
        signal.signal(number, _take_note)


def _take_note(number: int, _: FrameType | None) -> None:
    global _noted
    now = time.monotonic()
    if _noted is None:
        _noted = number, now
    elif now - _noted[1] > SAME_WISH_S:
        os._exit(128 + number)  # As if killed: what is being written has no final name yet.


def stop_if_asked() -> None:
    """Raise Interrupted when a signal was noted. For places where nothing is half done."""
    global _noted
    if _noted is not None:
        number, _noted = _noted[0], None
        raise Interrupted(number)


def is_asked() -> bool:
    """Whether a signal was noted that stop_if_asked would raise for."""
    return _noted is not None


def pause(seconds: float) -> None:
    """Sleep, but ask every moment whether to stop, as stop_if_asked."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        stop_if_asked()
        time.sleep(min(POLL_S, left))
    stop_if_asked()


def run_child(
    command: Sequence[str], limit_s: float | None = None, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """subprocess.run with its output captured, which a noted signal ends, as stop_if_asked.

    Raises subprocess.TimeoutExpired after `limit_s` seconds. The child does not outlive the call.
    """
    end = None if limit_s is None else time.monotonic() + limit_s
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, **options) as child:
        try:
            while True:
                stop_if_asked()
                try:
                    output = child.communicate(timeout=POLL_S)
                    return subprocess.CompletedProcess(command, child.returncode, *output)
                except subprocess.TimeoutExpired:
                    if end is not None and time.monotonic() > end:
                        raise
        except BaseException:
            child.kill()
            raise


@contextmanager
def shielded() -> Iterator[None]:
    """Processes that start in the block see SIGINT and SIGTERM only after `leave_to_parent`.

    A terminal sends them to all processes at once, also to those that have just begun.
    """
    resource_tracker.ensure_running()  # Beginning to run, it would lift the shield.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_parent() -> None:
    """In a helping process: the main process decides when to stop, and ends its helpers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
