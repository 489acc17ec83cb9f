"""One writer at a time."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from nyuseg.utils.errors import UserError
from nyuseg.utils.signals import POLL_S, pause


@contextmanager
def only_writer(result: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of `result` (a folder about to be written) for a block.

    Its file lies in the hidden folder .locks beside `result` and names host and pid. The system
    drops the lock of a process that dies, so the next one simply takes it. Raises UserError, naming
    the holder, when it is held and `wait` is false.
    """
    path = result.parent / ".locks" / result.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _acquire(path, result, wait)
    except OSError as error:
        raise UserError(f"{result.parent}: cannot be written ({error.strerror})") from None
    _open_locks.append(file)
    try:
        yield
    finally:
        _open_locks.remove(file)
        path.unlink(missing_ok=True)  # While still held: see _acquire.
        file.close()


# A forked reading process shares the lock, and would keep it for a while after our death.
_open_locks: list[TextIO] = []


def _close_in_child() -> None:
    for file in _open_locks:
        os.close(file.fileno())
    _open_locks.clear()


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def all_idle(parent: Path, pattern: str) -> Iterator[None]:
    """Hold every lock below `parent` whose name fits `pattern` and that has a file.

    Raises UserError, naming the holder, when another process holds one.
    """
    with ExitStack() as locks:
        for path in sorted((parent / ".locks").glob(pattern)):
            locks.enter_context(only_writer(parent / path.name))
        yield


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _acquire(path: Path, result: Path, wait: bool) -> TextIO:
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            if not wait:
                raise UserError(
                    f"{result}: being written by {holder}; wait for it, or stop it and try again"
                ) from None
            pause(POLL_S)  # A wait within the system would not end by a signal.
            continue
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK):
                raise
            print(f"warning: this disk knows no locks; let no second process write {result}")
        # The holder before us may have removed the file that we opened: then it protects nothing.
        if _inode(path) == os.fstat(file.fileno()).st_ino:
            break
        file.close()
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
