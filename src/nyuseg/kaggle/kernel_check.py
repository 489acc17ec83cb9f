"""Running a built kernel as Kaggle would, and comparing its masks with infer.py's.

A copy of the interpreter without the packages that Kaggle's image lacks, a tree that stands for
/kaggle/input, mounted read-only, a fresh /kaggle/working, and no network: in namespaces of its own
where the machine lets a user make them, otherwise behind file modes and a guard in the sockets.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nyuseg.data.frames import stored_kinds
from nyuseg.data.integrity import frame_sizes
from nyuseg.kaggle.kernel import END
from nyuseg.kaggle.metadata import KERNEL_FILE, KernelMetadata
from nyuseg.kaggle.records import PackageRecord
from nyuseg.submission.formats import FILES, Sizes, read_masks
from nyuseg.submission.manifest import MANIFEST, Manifest
from nyuseg.utils.errors import UserError
from nyuseg.utils.signals import run_child

OWNER, SLUG = "owner", "package"
# Where Kaggle has been seen to mount a data set.
LAYOUTS = {
    "plain": f"{SLUG}",
    "by owner": f"datasets/{OWNER}/{SLUG}",
    "unpacked once": f"datasets/{OWNER}/{SLUG}/x",
    "unpacked twice": f"{SLUG}/x/x",
    "notebook output": f"notebooks/{OWNER}/{SLUG}",
    "competition": f"competitions/{SLUG}",
}
# Not on Kaggle's image: the kernel must bring them. Its .pth files may point at this project.
ABSENT = (
    "nyuseg",
    "__editable__",
    "segmentation_models_pytorch",
    "timm",
    "ttach",
    "kaggle",
    "_nyuseg",
)
# A second wall, and the only one where namespaces are not allowed: this machine alone answers.
GUARD = """
import socket
def guard(name):
    original = getattr(socket.socket, name)
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] != "127.0.0.1":
            raise OSError("no network inside a kernel")
        return original(self, address)
    setattr(socket.socket, name, connect)
guard("connect")
guard("connect_ex")
"""
PASSED_ON = (
    *("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR"),
    *("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
)
ISOLATED = ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c"]
MOUNT = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'


def kaggle_like(folder: Path) -> Path:
    """Make an interpreter that sees this one's packages but those that Kaggle lacks; its path.

    Packages are linked, not copied; what the kernel installs goes into the new environment.
    """
    places = [Path(p) for p in sys.path if p.endswith(("site-packages", "dist-packages"))]
    packages = [path for place in places if place.is_dir() for path in place.iterdir()]
    venv.create(folder, symlinks=True, with_pip="pip" not in {path.name for path in packages})
    site = next(folder.glob("lib/python*/site-packages"))
    for path in packages:  # Of two of a name, the first one counts.
        if not path.name.startswith(ABSENT) and not (site / path.name).is_symlink():
            (site / path.name).symlink_to(path)
    (site / "sitecustomize.py").write_text(GUARD)
    return folder / "bin/python"


def mount(work: Path, layout: str, package: Path, test: Path) -> Path:
    """Lay out a stand-in for /kaggle/input, without write permission; returns its folder.

    test: a folder with image/ and perhaps depth/ of the test images; nothing else of the data is
    there.
    """
    inputs = work / "input"
    place = inputs / LAYOUTS[layout]
    place.parent.mkdir(parents=True)
    shutil.copytree(package, place)
    frames = inputs / ("data/test" if layout == "plain" else "competitions/data/test")
    for kind in stored_kinds(test.parent, test.name):
        shutil.copytree(test / kind, frames / kind)
    for path in inputs.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return inputs


def isolation(folder: Path) -> list[str]:
    """The command prefix for a read-only `folder` without a network; empty where not allowed."""
    probe = [*ISOLATED, MOUNT, "sh", str(folder), "true"]
    try:
        allowed = subprocess.run(probe, capture_output=True).returncode == 0
    except FileNotFoundError:
        return []
    return [*ISOLATED, MOUNT, "sh"] if allowed else []


def run_kernel(kernel: Path, work: Path, inputs: Path) -> Path:
    """Run a kernel's script in its stand-in for Kaggle; returns the working folder.

    Raises UserError with the kernel's last line when it fails or does not reach its end.
    """
    working = work / "working"
    working.mkdir()
    python = kaggle_like(work / "image")
    script = work / "kernel.py"
    script.write_text(script_of(kernel), encoding="utf-8")
    prefix = isolation(inputs)
    command = [*prefix, str(inputs)] if prefix else []
    environment = {  # No credentials, no settings of pip or Python.
        **{key: os.environ[key] for key in PASSED_ON if key in os.environ},
        "NYUSEG_INPUT": str(inputs),
        "NYUSEG_WORKING": str(working),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(work),
    }
    done = run_child([*command, str(python), str(script)], text=True, env=environment, cwd=working)
    if done.returncode or END not in done.stdout or not done.stdout.rstrip().endswith("END"):
        raise UserError(f"{kernel}: the kernel failed: {_last_line(done.stderr or done.stdout)}")
    return working


def _last_line(text: str) -> str:
    """What a kernel said at its end, or what a program said that it has called in vain."""
    said, _, traceback = text.strip().rpartition("Traceback (most recent call last):")
    called = "subprocess.CalledProcessError" in traceback and said.strip()
    return ((said if called else text).strip().splitlines() or ["no output"])[-1]


def script_of(kernel: Path) -> str:
    """The code of a kernel folder, notebook or script."""
    file = kernel / KernelMetadata.read(kernel / KERNEL_FILE).code_file
    if file.suffix == ".py":
        return file.read_text(encoding="utf-8")
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def agreement(one: Path, other: Path, sizes: Sizes) -> float:
    """Share of equal pixels of two submission folders, 0..1, from a format that both have.

    sizes: height and width of each image. Raises UserError without such a format, and as
    formats.read_masks does.
    """
    common = (name for name in FILES.values() if all((at / name).exists() for at in (one, other)))
    if (name := next(common, None)) is None:
        raise UserError(
            f"{one} and {other} have no format in common; give package_kernel.py and infer.py the "
            "same --format"
        )
    encoding = Manifest.read(other / MANIFEST).encoding
    masks = (read_masks(at / name, sizes, encoding) for at in (one, other))
    equal = [np.count_nonzero(a == b) for (_, a), (_, b) in zip(*masks, strict=True)]
    return sum(equal) / sum(height * width for height, width in sizes.values())


def check(
    kernel: Path,
    package: Path,
    test: Path,
    expected: Path,
    work: Path,
    layouts: Sequence[str],
) -> list[str]:
    """Run the kernel in some mount layouts; returns a line for each, agreement included.

    expected: infer.py's submission folder with the same folds and views. Raises UserError when a
    run fails, was made of other weights, views or settings, agrees in fewer than 99.9 % of the
    pixels, or at fp32 on a processor in fewer than all bytes.
    """
    precision = PackageRecord.read(package / MANIFEST).precision
    lines = []
    for layout in layouts:
        place = work / layout.replace(" ", "_")
        place.mkdir()
        inputs = mount(place, layout, package, test)
        working = run_kernel(kernel, place, inputs)
        exact = _require_same_plan(working, expected) and precision == "fp32"
        share = agreement(working, expected, frame_sizes(test.parent, test.name))
        if share < 0.999 or (exact and not _same_bytes(working, expected)):
            hint = "" if precision == "fp32" else "; package with --precision fp32 to see whether "
            hint += "half precision alone does it" if hint else ""
            what = f"only {share:.4%} of the pixels are those of {expected}"
            raise UserError(f"{layout}: {what}{hint}")
        lines.append(f"{layout:18}{LAYOUTS[layout]:28}{share:.4%} equal pixels")
        print(lines[-1], flush=True)
        isolated = bool(isolation(inputs))
        _remove(place)
    guard = "namespaces" if isolated else "file modes and a socket guard"
    print(f"{sys.version.split()[0]}, isolated by {guard}, weights in {precision} precision")
    return lines


def _remove(place: Path) -> None:
    for path in (place / "input").rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(place)


def _require_same_plan(working: Path, expected: Path) -> bool:
    """Raise UserError when kernel and infer.py did not even mean to write the same.

    Returns whether both used processors: two runs on a GPU need not choose the same algorithms.
    """
    kernel, own = (Manifest.read(folder / MANIFEST) for folder in (working, expected))
    views = kernel.budget.planned.views if kernel.budget else kernel.views
    for what, one, other in (
        ("weights", kernel.folds, own.folds),
        ("views", views, own.views),
        *((f"submission.{key}", one, dict(own.encoding)[key]) for key, one in kernel.encoding),
    ):
        if one != other:
            shown = "" if what == "weights" else f" ({one}, there {other})"
            raise UserError(
                f"the kernel has other {what} than {expected}{shown}; give package_kernel.py and "
                "infer.py the same --fold and --set, and --no-tta or --tta"
            )
    return all(one.environment["device"].startswith("cpu") for one in (kernel, own))


def _same_bytes(one: Path, other: Path) -> bool:
    there = [n for n in FILES.values() if (other / n).exists() and (one / n).exists()]
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in there)
