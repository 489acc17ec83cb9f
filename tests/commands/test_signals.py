"""Stopping by signal: noted at once, obeyed where nothing is half done."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nyuseg.training.checkpoint import load_checkpoint
from nyuseg.utils import locks, signals
from nyuseg.utils.files import PROJECT
from nyuseg.utils.progress import progress


@pytest.fixture
def caught():
    before = {number: signal.getsignal(number) for number in signals.STOPPING}
    signals.catch_signals()
    yield
    signals.catch_signals()  # Forgets the signal of this test, which would stop the next training.
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_between_two_items_and_nowhere_else(caught, number: int, code: int) -> None:
    done = []
    with pytest.raises(signals.Interrupted) as interruption:
        for item in progress(range(9), "test", 9):
            if item == 3:
                os.kill(os.getpid(), number)
            done.append(item)
    assert done == [0, 1, 2, 3] and interruption.value.code == code
    signals.stop_if_asked()  # It was obeyed once.


def test_a_signal_before_the_first_item_is_not_lost(caught) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(signals.Interrupted):
        next(progress(range(9), "test", 9))


def in_python(code: str) -> subprocess.CompletedProcess:
    start = f"import os, signal, sys, time\nsys.path.insert(0, {str(PROJECT / 'src')!r})\n"
    command = [sys.executable, "-c", start + code]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_second_signal_ends_at_once_but_not_the_same_wish_twice() -> None:
    """'make' passes on what the terminal has sent to its child already."""
    code = """
from nyuseg.utils import signals
signals.catch_signals()
for _ in range(3):
    os.kill(os.getpid(), signal.SIGINT)
print("noted", flush=True)
time.sleep(2 * signals.SAME_WISH_S)
os.kill(os.getpid(), signal.SIGTERM)
print("never")
"""
    done = in_python(code)
    assert done.returncode == 143 and done.stdout == "noted\n" and not done.stderr


def test_a_signal_while_the_last_piece_is_done_is_told_to_the_caller() -> None:
    code = """
from nyuseg.utils.cli import run
def main(argv):
    os.kill(os.getpid(), signal.SIGINT)
    print("result: all of it")
run(main)
"""
    done = in_python(code)
    assert done.returncode == 130 and done.stdout == "result: all of it\n"
    assert done.stderr.startswith("stopped by SIGINT") and len(done.stderr.splitlines()) == 1


def test_waiting_for_a_lock_ends_by_a_signal(caught, tmp_path: Path) -> None:
    with locks.only_writer(tmp_path / "fold_0"):
        code = f"""
from pathlib import Path
from nyuseg.utils.cli import run
from nyuseg.utils.locks import only_writer
def main(argv):
    print("waiting", flush=True)
    with only_writer(Path({str(tmp_path / "fold_0")!r}), wait=True):
        pass
run(main)
"""
        start = f"import sys\nsys.path.insert(0, {str(PROJECT / 'src')!r})\n"
        command = [sys.executable, "-c", start + code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            child.stdout.readline()
            child.terminate()
            assert child.wait(60) == 143


def test_a_lock_that_becomes_free_is_taken_by_who_waits(tmp_path: Path) -> None:
    held, freed = threading.Event(), threading.Event()
    order = []

    def hold() -> None:
        with locks.only_writer(tmp_path / "fold_0"):
            held.set()
            freed.wait(60)
            order.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    threading.Timer(0.2, freed.set).start()
    with locks.only_writer(tmp_path / "fold_0", wait=True):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_a_child_does_not_outlive_the_signal(caught) -> None:
    begun = time.monotonic()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(signals.Interrupted):
        signals.run_child([sys.executable, "-c", "import time; time.sleep(600)"])
    assert time.monotonic() - begun < 300  # Not to the child's own end.


def test_a_child_answers_and_has_a_limit() -> None:
    code = "import sys; print('x' * 10**6); print('y', file=sys.stderr); sys.exit(3)"
    done = signals.run_child([sys.executable, "-c", code], text=True)
    assert (done.returncode, len(done.stdout), done.stderr) == (3, 10**6 + 1, "y\n")
    with pytest.raises(subprocess.TimeoutExpired):
        signals.run_child([sys.executable, "-c", "import time; time.sleep(600)"], 0.2)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_says_how_to_go_on(tmp_path: Path, number: int, code: int) -> None:
    from nyuseg.demo.data import write_demo

    write_demo(tmp_path / "data", scenes=4, frames=2, test_scenes=1, size=(48, 64))
    settings = ["model.encoder=tu-test_resnet", "data.size=[48,64]", "compute.workers=2"]
    options = [f"--set={text}" for text in (*settings, "folds.count=2", "train.epochs=500")]
    script = [sys.executable, "-u", str(PROJECT / "src/train_folds.py"), "--fold", "0"]
    config = ["--config", str(PROJECT / "configs/demo.yaml")]
    folders = ["--input", str(tmp_path / "data"), "--oof", str(tmp_path / "oof")]
    run = subprocess.Popen(
        [*script, *config, *folders, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in run.stdout:
        if "epoch   2" in line:
            break
    run.send_signal(number)
    _, error = run.communicate(timeout=300)
    assert run.returncode == code
    assert "run the same command again to go on" in error and "Traceback" not in error
    state = load_checkpoint(tmp_path / "oof/demo/fold_0/last.pt")
    assert state["epoch"] >= 2 and len(state["history"]) == state["epoch"]


@pytest.mark.slow
def test_signals_at_random_moments_are_never_lost() -> None:
    """The short form of benchmarks/signals.py: exit codes, last lines, what is left behind."""
    # A process of its own: it forks, and this one may have torch's threads running.
    harness = [sys.executable, str(PROJECT / "benchmarks/signals.py"), "--signals", "40"]
    done = subprocess.run(harness, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 signals, 0 faults" in done.stdout
