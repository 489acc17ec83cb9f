"""Progress of anything that takes more than a moment."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from nyuseg.utils.signals import stop_if_asked

Item = TypeVar("Item")
SECONDS = 10


def progress(
    items: Iterable[Item],
    title: str,
    total: int,
    unit: str = "image",
    stop: Callable[[], None] = stop_if_asked,
    quiet: bool = False,
) -> Iterator[Item]:
    """Pass the items through, with a bar on a terminal, else with a plain line each 10 seconds.

    Between two items, when the one before has been dealt with, it is safe to stop: a signal that
    was noted raises Interrupted there (see signals), by `stop`. quiet: show nothing.
    """
    show = _bar if sys.stderr.isatty() else _lines
    shown = iter(items) if quiet else show(items, title, total, unit)
    stop()
    for item in shown:
        yield item
        stop()


def _bar(items: Iterable[Item], title: str, total: int, unit: str) -> Iterator[Item]:
    return iter(tqdm(items, title, total, leave=False, unit=unit))


def _lines(items: Iterable[Item], title: str, total: int, _: str) -> Iterator[Item]:
    shown = started = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown > SECONDS and done < total:
            shown, left = now, (now - started) / done * (total - done)
            print(f"{title}: {done}/{total}, {left:.0f} s left", file=sys.stderr, flush=True)
