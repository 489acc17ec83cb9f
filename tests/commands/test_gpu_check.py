"""benchmarks/gpu_check.py, as far as a processor can show it: it runs, and tells what is wrong."""

import subprocess
import sys

import gpu_check
import gpu_parts
import pytest
import torch

from nyuseg.utils.files import PROJECT

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


def test_a_gpu_that_this_torch_has_no_code_for_is_told(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "compute_90"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 0))
    assert "has no code for Tesla P100" in gpu_check.fault()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 6))
    assert gpu_check.fault() is None


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
