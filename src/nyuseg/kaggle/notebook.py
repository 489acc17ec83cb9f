"""The kernel's source: a few readable cells, as a notebook or as a script."""

import inspect
import json
from pathlib import Path

from nyuseg.kaggle.mounts import describe, find_all

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
import time
from pathlib import Path

STARTED = time.time()
FINGERPRINT = "{fingerprint}"
INPUT = Path(os.environ.get("NYUSEG_INPUT", "/kaggle/input"))
WORKING = Path(os.environ.get("NYUSEG_WORKING", "/kaggle/working"))
# Importing must not call home: there is no network to answer.
os.environ.update(NO_ALBUMENTATIONS_UPDATE="1", HF_HUB_OFFLINE="1")


{find_all}

def version(folder: Path) -> str | None:
    # The fingerprint of a package; None for any other folder with a manifest.json.
    try:
        facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return facts["fingerprint"] if any(folder.glob("nyuseg-*.whl")) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


{describe}

versions = {{folder: version(folder) for folder in find_all(INPUT, "manifest.json")}}
packages = [folder for folder, found in versions.items() if found == FINGERPRINT]
if not packages:
    others = sorted(found[:12] for found in versions.values() if found)
    if others:
        what = f"is version {{', '.join(others)}}, this kernel was made for {{FINGERPRINT[:12]}}"
    else:
        what = f"is not attached; mounted: {{describe(INPUT)}}"
    raise SystemExit(f"the data set of this kernel {{what}}")
package = packages[0]
print("package:", package)
# Into a folder of its own, which goes first: whatever is installed, and on a read-only image.
LIBRARY = Path("/tmp") / f"nyuseg_{{FINGERPRINT[:12]}}"
wheels = sorted(str(path) for path in package.glob("*.whl"))
install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
subprocess.run([*install, "--upgrade", "--target", str(LIBRARY), *wheels], check=True)
sys.path.insert(0, str(LIBRARY))
"""

PREDICT = """\
from nyuseg.kaggle.kernel import run

manifest = run(package, FINGERPRINT, INPUT, WORKING, {budget_hours}, STARTED)
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
    sources = {one.__name__: inspect.getsource(one) for one in (find_all, describe)}
    install = INSTALL.format(fingerprint=fingerprint, **sources)
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
    path.write_text(make(intro, cells), encoding="utf-8")
