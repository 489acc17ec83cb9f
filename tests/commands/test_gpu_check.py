"""benchmarks/gpu_check.py, as far as a processor can show it: it runs, and tells what is wrong."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gpu_check
import gpu_parts
import pytest
import torch

from nyuseg.models import device
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT

# A part that waits for an agent, whose worker is in a session of its own.
HANGING = """
import os, pathlib, signal, subprocess, sys, time
here, role = pathlib.Path(sys.argv[1]), (sys.argv + ["part"])[2]
if role == "worker":
    (here / "worker").touch()
    time.sleep(600)
if role == "agent":
    def stop(*_):
        worker.kill()
        worker.wait()
        (here / "ended").touch()
        os._exit(0)
    signal.signal(signal.SIGTERM, stop)
    worker = subprocess.Popen([*sys.orig_argv[:3], "worker"], start_new_session=True)
    time.sleep(600)
subprocess.run([*sys.orig_argv, "agent"])
"""
SCRIPT = [sys.executable, str(PROJECT / "benchmarks/gpu_check.py")]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SCRIPT, *words], capture_output=True, text=True)


def test_without_a_gpu_it_says_so_in_one_line(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = run()
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout == f"{gpu_check.NO_GPU}\n"


@pytest.mark.slow
def test_the_parts_run_and_the_recipes_make_a_table() -> None:
    # Float16 changes what the library takes for the device's best: a process of its own.
    names = ["float16", "configs/exp060.yaml"]
    done = run("--try", *[word for name in names for word in ("--only", name)])
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    checks = gpu_parts.CHECKS
    # Several processes are tests/training/test_team.py's.
    lines += [part(True) for name, part in checks.items() if name not in (*names, "all GPUs")]
    lines += [gpu_parts.five_folds(True)]
    for said in (
        *("a step's gradients differ", "in which nothing waited", "probabilities differ by"),
        *("overflowed and were skipped", "8 and 16 images"),
    ):
        assert sum(said in line for line in lines) == 1, said
    head, rule, row = (line for line in lines if line.startswith("|"))
    assert head.count("|") == rule.count("|") == row.count("|")
    assert float(row.split("|")[4]) > 0 and float(row.split("|")[5]) > 0


def test_each_figure_of_a_recipe_stands_below_its_name(monkeypatch) -> None:
    answers = iter([(6.0, 3.5), (1.5, 7.25)])  # Ours, then the plain loop.
    monkeypatch.setattr(gpu_parts, "pace", lambda *_: next(answers))
    monkeypatch.setattr(gpu_parts, "expected", lambda *_: ("20%", "4.4"))
    for name in ("ours_step", "plain_step"):
        monkeypatch.setattr(gpu_parts, name, lambda *_: None)
    row = gpu_parts.recipe_row(PROJECT / "configs/exp060.yaml", True)
    names = [name.strip() for name in gpu_check.HEAD.split("\n")[1].strip("|").split("|")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert list(zip(names, cells, strict=True))[3:] == [
        *(("images/s", "6"), ("plain loop", "1.5"), ("ratio", "4"), ("share of peak", "20%")),
        *(("memory, GB", "3.5"), ("estimated", "4.4"), ("plain loop", "7.25")),
    ]


def test_all_recipes_for_a_gpu_are_measured() -> None:
    found = gpu_check.recipes()
    assert "configs/exp060.yaml" in found and "configs/dinov3_vitl.yaml" in found
    assert not [path for path in found if "demo" in path or "small" in path]


def test_a_part_that_fails_is_named_and_the_others_go_on(monkeypatch, capfd) -> None:
    monkeypatch.setattr(gpu_check, "__file__", "/no/script.py")
    assert list(gpu_check.say_all(["step", "waiting"], small=True)) == ["step", "waiting"]


@pytest.fixture
def p100(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine with a GPU that this torch has no code for."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90a", "compute_90"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (6, 0))
    device.gpu_fault.cache_clear()
    yield monkeypatch
    device.gpu_fault.cache_clear()


def test_a_gpu_that_this_torch_has_no_code_for_is_told(p100) -> None:
    assert "has no code for Tesla P100" in gpu_check.fault()
    with pytest.raises(UserError, match=r"GPU: torch .* no code for Tesla P100 \(GPU 0\); install"):
        device.pick_devices()
    # Beside one for which it has code.
    device.gpu_fault.cache_clear()
    p100.setattr(torch.cuda, "device_count", lambda: 2)
    p100.setattr(torch.cuda, "get_device_capability", lambda index: [(9, 0), (6, 0)][index])
    assert "Tesla P100 (GPU 1)" in gpu_check.fault()
    device.gpu_fault.cache_clear()
    p100.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert gpu_check.fault() is None
    assert device.pick_devices() == [torch.device("cuda", index) for index in range(2)]


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (["sm_75", "sm_86"], (8, 9), True),
        (["sm_75", "sm_86"], (8, 0), False),
        (["sm_75", "sm_86"], (9, 0), False),  # Another major version.
        (["sm_75", "sm_90a", "compute_90"], (12, 0), True),  # Compiled when it is loaded.
        (["sm_75", "compute_90"], (8, 6), False),
        (["sm_80", "sm_100"], (10, 3), True),
        (["gfx90a"], (9, 0), True),  # Of AMD.
    ],
)
def test_code_runs_on_its_major_version_and_later_ones_if_compiled_there(
    architectures: list[str], capability: tuple[int, int], runs: bool
) -> None:
    assert device._has_code(architectures, capability) is runs


def test_a_gpu_whose_driver_is_too_old_is_told_and_not_replaced_by_the_processor(p100) -> None:
    p100.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"GPU: its driver is too old .*CUDA_VISIBLE_DEVICES="):
        device.pick_devices()


def test_what_hangs_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    """torchrun puts its workers into groups of their own, and ends them when it is told to."""
    script = tmp_path / "part.py"
    script.write_text(HANGING)
    part = subprocess.Popen([sys.executable, str(script), str(tmp_path)], start_new_session=True)
    while not (tmp_path / "worker").exists():
        time.sleep(0.05)
    gpu_check.end(part)
    assert part.returncode is not None and (tmp_path / "ended").exists()


def test_a_step_that_differs_from_the_processors_is_told(monkeypatch) -> None:
    answers = iter([[torch.tensor([1.0, -4.0])], [torch.tensor([1.0, -4.1])]])
    monkeypatch.setattr(gpu_parts, "KINDS", {"deeplabv3plus": ()})
    monkeypatch.setattr(gpu_parts, "gradients", lambda *_: next(answers))
    with pytest.raises(
        AssertionError, match=r"differs from the processor's: deeplabv3plus 2.5e-02"
    ):
        gpu_parts.step_agrees(True)


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("Tesla T4", "t4"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100 80GB PCIe", "a100-80"),
        ("NVIDIA A100-SXM4-40GB", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA L40S", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("Quadro P4000", None),
    ],
)
def test_a_gpu_is_known_by_what_its_driver_calls_it(monkeypatch, name: str, card) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    found = gpu_parts.this_card()
    assert (found and found.name) == card
