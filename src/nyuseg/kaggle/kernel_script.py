"""RGB-D segmentation of the competition's test images, without internet.

Weights, library and configuration come from the attached data set. The cells below install its
wheels, find what is mounted, predict, verify and show the result.
"""

# %% The attached data set, and the wheels in it
import json
import os
import subprocess
import sys
import time
from pathlib import Path

STARTED = time.time()
# Packaging sets both: the version of the data set that this kernel was made for, and its time.
FINGERPRINT = ""
BUDGET_HOURS = 8.5
INPUT = Path(os.environ.get("NYUSEG_INPUT", "/kaggle/input"))
WORKING = Path(os.environ.get("NYUSEG_WORKING", "/kaggle/working"))
# Importing must not call home: there is no network to answer.
os.environ.update(NO_ALBUMENTATIONS_UPDATE="1", HF_HUB_OFFLINE="1")

# Kaggle has mounted data sets one to five folders deep, with and without their owner's name.
versions: dict[Path, str] = {}
for folder in [path.parent for n in range(7) for path in INPUT.glob("*/" * n + "nyuseg-*.whl")]:
    try:
        facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        versions[folder] = facts["fingerprint"]
    except (OSError, ValueError, TypeError, KeyError):
        continue  # Not a package of this project.
packages = [folder for folder, version in versions.items() if version == FINGERPRINT]
if not packages:
    mounted = [str(folder) for n in (1, 2, 3) for folder in sorted(INPUT.glob("*/" * n))]
    what = f"is not attached; mounted: {', '.join(mounted[:20]) or 'nothing'}"
    if versions:
        others = ", ".join(sorted(version[:12] for version in versions.values()))
        what = f"is version {others}, this kernel was made for {FINGERPRINT[:12]}"
    raise SystemExit(f"the data set of this kernel {what}")
package = packages[0]
print("package:", package)
# Into a folder of its own, which goes first: whatever is installed, and on a read-only image.
LIBRARY = Path("/tmp") / f"nyuseg_{FINGERPRINT[:12]}"
wheels = sorted(str(path) for path in package.glob("*.whl"))
install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
MAIN = __name__ == "__main__"  # Where Python does not fork, a reading process runs this file, too.
if MAIN:
    subprocess.run([*install, "--upgrade", "--target", str(LIBRARY), *wheels], check=True)
sys.path.insert(0, str(LIBRARY))

# %% Predict, write and verify
if MAIN:
    from nyuseg.kaggle.kernel import run

    manifest = run(package, FINGERPRINT, INPUT, WORKING, BUDGET_HOURS, STARTED)

# %% A look at the masks
if MAIN and "IPython" in sys.modules:
    from IPython.display import Image, display

    display(Image(filename=str(WORKING / "preview.png")))

# %% Report
if MAIN:
    shown = {"experiment", "images", "seconds", "views", "budget", "cv", "notice", "files"}
    print(manifest.model_dump_json(include=shown, indent=2))
    print("END")
