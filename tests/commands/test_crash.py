"""The short form of benchmarks/crash.py: killed, resumed, the same bit for bit."""

import subprocess
import sys

import pytest

from nyuseg.utils.files import PROJECT


@pytest.mark.slow
def test_killed_runs_end_like_runs_left_alone() -> None:
    # A process of its own: it forks, and this one may have torch's threads running.
    harness = [sys.executable, str(PROJECT / "benchmarks/crash.py"), "--kills", "8", "--seed", "3"]
    done = subprocess.run(harness, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("0 differences") == 2
    assert "training: 8 kills" in done.stdout and "inference: 4 kills" in done.stdout
