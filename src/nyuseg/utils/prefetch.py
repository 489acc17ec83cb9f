"""Doing the next piece of work while the last one is being used: order kept, memory bounded."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from itertools import repeat
from typing import Any, TypeVar

_END = object()
Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    depth: int,
    pool: ThreadPoolExecutor | None = None,
) -> Generator[Result]:
    """Yield function(item) for each item, in their order, computed by `threads` threads.

    At most `depth` results wait beyond the one in use. An exception of `function` is raised where
    its result is due. Left early, it waits for what is being computed and computes no more. pool:
    threads that stay for the next call, instead of some of its own.
    """
    with nullcontext(pool) if pool else ThreadPoolExecutor(threads) as workers:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(workers.submit(function, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            wait(waiting)


def prefetch(items: Iterable[Item], depth: int = 1) -> Iterator[Item]:
    """Yield the items of an iterator that runs in a thread of its own, `depth` items ahead."""
    iterator = iter(items)

    def step(_: Any) -> Any:
        return next(iterator, _END)

    for item in in_order(step, repeat(None), 1, depth):
        if item is _END:
            return
        yield item
