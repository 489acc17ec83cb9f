"""Does everything hold on your GPU that holds on a processor, and how fast is it?

A training step gives the processor's gradients; nothing in it waits for the GPU; what does not fit
into the memory is predicted in halves; float16 skips the steps that overflow; all GPUs together
train what one trains. Then the speed and the memory of each recipe at its real size, from random
weights, beside a plain loop: the same network in float32 with torch's defaults. Last, Exp060's five
folds with flip from files to a submission. Each part runs in a process of its own, on the first GPU
or, where it says so, on all. Its output is a table in Markdown. Expected: ten minutes on a fast
GPU, half an hour on a T4; of recipes that differ little, one is measured unless all are asked for.

examples:
  python benchmarks/gpu_check.py
  python benchmarks/gpu_check.py --all
  python benchmarks/gpu_check.py --only step --only configs/dinov3_vitb.yaml
  python benchmarks/gpu_check.py --try         in small on any device, only to test this script
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
# Recipes for two cores, and for the demo, say nothing about a GPU.
SMALL = ("demo", "demo_fpn", "nyuv2_small", "nyuv2_small_best")
# What the others are nearly the same as.
SHOWN = (
    "exp060",
    "exp093",
    "exp093_2",
    "convnext_l",
    "dinov3_vitb",
    "dinov3_vitl",
    "fusion_swin_l",
)
NO_GPU = "no GPU here: nothing to check (the tests check the same on the processor)"
HEAD = (
    "\n| recipe | batch | in parts | images/s | plain loop | ratio | share of peak "
    "| memory, GB | estimated | plain loop |\n|" + "---|" * 10
)
LIMIT_S = 300  # Of a part.
PATIENCE_S = 40  # For a part that is told to end.


def recipes() -> list[str]:
    """The configurations that can be measured, by their path below the project."""
    paths = sorted((PROJECT / "configs").glob("*.yaml"))
    return [str(path.relative_to(PROJECT)) for path in paths if path.stem not in SMALL]


def fault() -> str | None:
    """Why nothing can be checked here; None when all can."""
    import torch

    from nyuseg.models.device import gpu_fault

    if not torch.cuda.device_count():
        driver = Path("/proc/driver/nvidia/version").exists()
        return f"{NO_GPU}{'; a driver is there, but not one for this torch' * driver}"
    fault = gpu_fault()
    return fault and f"GPU: {fault}; run it with a torch that fits"


def parts() -> dict[str, Callable[[bool], str]]:
    """Each part by its name; given whether to be small it returns what to print."""
    import gpu_parts

    found: dict[str, Callable[[bool], str]] = dict(gpu_parts.CHECKS)
    for path in recipes():
        found[path] = partial(gpu_parts.recipe_row, PROJECT / path)
    return found | {"five folds + flip": gpu_parts.five_folds}


def say_all(names: list[str], small: bool) -> Iterator[str]:
    """Run each part by this script; yields the names of those that failed."""
    rows = False
    for name in names:
        if name.endswith(".yaml") and not rows:
            rows = True
            print(HEAD, flush=True)
        command = [sys.executable, str(Path(__file__).resolve()), "--one", name]
        part = subprocess.Popen([*command, *["--try"] * small], start_new_session=True)
        try:
            code = part.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            end(part)
            print(f"{name}: not finished after {LIMIT_S} s", flush=True)
            code = 1
        if code:
            yield name


def end(part: subprocess.Popen[bytes]) -> None:
    """End a part that hangs with all that it has started, so that nothing is left on the GPUs.

    torchrun's workers are in groups of their own: it ends them itself, within 30 s of being told.
    """
    os.killpg(part.pid, signal.SIGTERM)
    try:
        for _ in range(PATIENCE_S):
            time.sleep(1)
            part.poll()
            os.killpg(part.pid, 0)
        os.killpg(part.pid, signal.SIGKILL)
    except ProcessLookupError:  # Nobody is left.
        return


def main() -> None:
    """Check what the command line asks for."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--only", action="append", metavar="PART", help="a part or a recipe")
    parser.add_argument("--all", action="store_true", help="all recipes")
    parser.add_argument("--try", action="store_true", dest="small", help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import torch

    if (why := fault()) and not options.small:
        print(why)
        return
    known = parts()
    if options.one:
        print(known[options.one](options.small), flush=True)
        return
    shown = [n for n in known if options.all or Path(n).stem in SHOWN or not n.endswith(".yaml")]
    names = options.only or shown
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"--only {unknown[0]}: expected one of {', '.join(known)}")
    where = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "the processor"
    print(f"{torch.cuda.device_count()} x {where}, torch {torch.__version__}\n", flush=True)
    failed = list(say_all(names, options.small))
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
