"""The kernel's source: a few readable cells, as a notebook or as a script."""

import inspect
import json
from pathlib import Path

from nyuseg.mounts import find_all

INTRO = """\
# {title}
RGB-D segmentation of the test images with {folds} folds{tta} of `{experiment}`, without internet.
Weights, library and configuration come from the attached data set; the cells below install its
wheels, find what is mounted, predict, verify and show the result.
"""

INSTALL = """\
import json
import os
import subprocess
import sys
from pathlib import Path

FINGERPRINT = "{fingerprint}"
INPUT = Path(os.environ.get("NYUSEG_INPUT", "/kaggle/input"))
WORKING = Path(os.environ.get("NYUSEG_WORKING", "/kaggle/working"))
# Importing must not call home: there is no network to answer.
os.environ.update(NO_ALBUMENTATIONS_UPDATE="1", HF_HUB_OFFLINE="1")


{find_all}

packages = [
    folder
    for folder in find_all(INPUT, "manifest.json")
    if "fingerprint" in json.loads((folder / "manifest.json").read_text())
]
if not packages:
    mounted = sorted(str(path) for path in INPUT.glob("*/*"))
    raise SystemExit(f"the data set of this kernel is not attached; mounted: {{mounted}}")
# The version that this kernel was made for first; another one is refused below by name.
packages.sort(key=lambda folder: FINGERPRINT not in (folder / "manifest.json").read_text())
package = packages[0]
print("package:", package)
wheels = sorted(str(path) for path in package.glob("*.whl"))
command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *wheels]
subprocess.run(command, check=True)
"""

PREDICT = """\
from nyuseg.kernel import run

manifest = run(package, FINGERPRINT, INPUT, WORKING, budget_hours={budget_hours})
"""

SHOW = """\
from IPython.display import Image, display

display(Image(filename=str(WORKING / "preview.png")))
"""

REPORT = """\
shown = ("images", "seconds", "views", "budget", "cv", "notice", "files")
print(json.dumps({key: manifest[key] for key in shown}, indent=2))
print("END")
"""


def code_cells(fingerprint: str, budget_hours: float) -> list[str]:
    """The source of the code cells, without the one that only shows a picture."""
    install = INSTALL.format(fingerprint=fingerprint, find_all=inspect.getsource(find_all))
    return [install, PREDICT.format(budget_hours=budget_hours), REPORT]


def make_script(intro: str, cells: list[str]) -> str:
    """All cells as one Python script; the introduction becomes comments."""
    comments = "".join(f"# {line}".rstrip() + "\n" for line in intro.splitlines())
    return comments + "\n" + "\n".join(cells)


def make_notebook(intro: str, cells: list[str]) -> str:
    """All cells as a notebook (nbformat 4.5), with the preview before the report."""
    sources = [("markdown", intro), *(("code", cell) for cell in [*cells[:-1], SHOW, cells[-1]])]
    return json.dumps(
        {
            "cells": [_cell(number, *source) for number, source in enumerate(sources)],
            "metadata": {
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                "language_info": {"name": "python"},
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        },
        indent=1,
    )


def _cell(number: int, kind: str, source: str) -> dict:
    cell = {
        "cell_type": kind,
        "id": f"cell-{number}",
        "metadata": {},
        "source": source.strip().splitlines(keepends=True),
    }
    return cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []}


def write_source(path: Path, intro: str, cells: list[str]) -> None:
    """Write the kernel as a notebook (.ipynb) or a script (.py), by the path's suffix."""
    make = make_notebook if path.suffix == ".ipynb" else make_script
    path.write_text(make(intro, cells))
