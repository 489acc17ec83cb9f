"""Run the packaged kernel as Kaggle would and compare its masks with infer.py's.

examples:
  python src/check_kernel.py --submission submissions/exp060_tta
  python src/check_kernel.py --submission submissions/demo_tta --input input/demo --layout all
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from nyuseg.utils.cli import Parser, run
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, find


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--submission", required=True, help="infer.py's folder to compare with")
    parser.add_argument("--input", default=str(PROJECT / "input"), help="folder with test/")
    parser.add_argument(
        "--layout",
        default="by owner",
        help="where Kaggle mounts the data set: 'by owner' (default), or 'all' six places in turn",
    )
    parser.add_argument(
        "--kernel",
        default=str(PROJECT / "kaggle_kernel"),
        metavar="DIR",
        help="package_kernel.py's --output",
    )
    options = parser.parse_args(argv)
    from nyuseg.kaggle.kernel_check import LAYOUTS, check

    layouts = list(LAYOUTS) if options.layout == "all" else [options.layout]
    if layouts[0] not in LAYOUTS:
        raise UserError(f"--layout {options.layout}: none of {', '.join(LAYOUTS)}, all")

    # Absolute: the kernel runs in another working directory.
    kernel, test = find(options.kernel).resolve(), find(options.input) / "test"
    if not kernel.is_dir():
        raise UserError(f"{kernel}: no such folder; run src/package_kernel.py first")
    with tempfile.TemporaryDirectory(dir=kernel) as work:
        submission = find(options.submission)
        check(kernel / "kernel", kernel / "dataset", test, submission, Path(work), layouts)
    print("the kernel gives the masks of infer.py")


if __name__ == "__main__":
    run(main)
