"""Progress of anything that takes more than a moment."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
SECONDS = 10


def progress(items: Iterable[Item], title: str, total: int, unit: str = "image") -> Iterator[Item]:
    """Pass the items through, with a bar on a terminal, else with a plain line each 10 seconds."""
    if sys.stderr.isatty():
        yield from tqdm(items, title, total, leave=False, unit=unit)
        return
    shown = started = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - shown > SECONDS and done < total:
            shown, left = now, (now - started) / done * (total - done)
            print(f"{title}: {done}/{total}, {left:.0f} s left", file=sys.stderr, flush=True)
