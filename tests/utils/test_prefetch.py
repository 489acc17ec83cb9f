"""Working ahead: order, bounds, errors."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nyuseg.utils.prefetch import in_order, prefetch


def test_results_keep_their_order_though_the_first_takes_longest() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.05 if item == 0 else 0)
        return item * item

    assert list(in_order(slow_first, range(20), 4, 4)) == [n * n for n in range(20)]


def test_no_more_than_the_bound_is_computed_ahead() -> None:
    started = []

    def note(item: int) -> int:
        started.append(item)
        return item

    for item in in_order(note, range(50), 2, 3):
        assert len(started) <= item + 4


def test_threads_that_are_given_stay_and_what_they_still_compute_is_waited_for() -> None:
    used, ended = set(), []

    def work(item: int) -> int:
        used.add(threading.get_ident())
        time.sleep(0.02)
        ended.append(item)
        return item

    with ThreadPoolExecutor(1) as pool:
        assert list(in_order(work, range(3), 1, 1, pool)) == [0, 1, 2]
        some = in_order(work, range(50), 1, 5, pool)
        next(some)
        some.close()
        begun = len(ended)
        assert list(in_order(work, [7], 1, 1, pool)) == [7]
    assert len(used) == 1 and ended[begun:] == [7] and begun < 50


def test_the_next_item_is_made_while_this_one_is_used() -> None:
    made = [threading.Event() for _ in range(4)]

    def items():
        for event in made:
            event.set()
            yield event

    for i, _ in enumerate(prefetch(items())):
        if i + 1 < len(made):
            assert made[i + 1].wait(5), "nothing was made ahead"


def test_an_error_comes_where_its_item_is_due() -> None:
    def items():
        yield 1
        yield 2
        raise ValueError("third")

    seen = []
    with pytest.raises(ValueError, match="third"):
        for item in prefetch(items(), depth=5):
            seen.append(item)
    assert seen == [1, 2]


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    for item in prefetch(iter(range(10**9))):
        if item == 3:
            break
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
