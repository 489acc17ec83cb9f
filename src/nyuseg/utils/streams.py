"""Standard streams that outlast whoever reads them, and take any text."""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any

# The reader of a pipe is gone, or the terminal, or the disk of a log is full.
GONE = (errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EDQUOT)


class Lasting:
    """A text stream that falls silent when nobody can read it any more.

    Hours of work must not end because 'head' has seen enough, a terminal was closed or the disk of
    a log is full.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, function: Callable[..., Any], *given: str) -> None:
        try:
            function(*given)
        except OSError as error:
            if error.errno not in GONE:
                raise
            _open_nothing(self._stream.fileno())  # What is left in the buffer goes there, too.


def keep_streams() -> None:
    """Make standard output and error lasting, and able to show names that are not UTF-8.

    One that is closed becomes the null device, so that no file opened later takes its number and
    is written over by what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        try:
            os.fstat(number)
        except OSError:
            _open_nothing(number)
            stream = None
        if stream is None:
            stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115
        if number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            stream = Lasting(stream)
        setattr(sys, name, stream)


def _open_nothing(number: int) -> None:
    handle = os.open(os.devnull, os.O_RDWR)
    if handle != number:
        os.dup2(handle, number)
        os.close(handle)
