"""Measure test-time views on the out-of-fold images and name the cheapest set that is as good.

examples:
  python src/tta_search.py exp060
  python src/tta_search.py exp060 --scales 0.75,1.25,1.5
"""

from collections.abc import Sequence
from pathlib import Path

from nyuseg.utils.cli import Parser, add_input, add_oof, given_input, run
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import require_safe_name


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("experiment", help="its folder below --oof")
    parser.add_argument("--scales", default="0.75,1.25", help="besides 1; default 0.75,1.25")
    add_input(parser)
    add_oof(parser)
    options = parser.parse_args(argv)
    require_safe_name(options.experiment, "experiment")
    scales = parse_scales(options.scales)
    from nyuseg.analysis.tta_search import search, view_table
    from nyuseg.experiment.folder import open_experiment
    from nyuseg.models.device import pick_device

    oof = Path(options.oof)
    experiment = open_experiment(options.experiment, oof, root=given_input(options))
    result = search(experiment, scales, pick_device())
    print(f"\n{view_table(result)}")
    if result.notice:
        print(f"!! {result.notice} !!")
    print(f"\nresult: {experiment.folder / 'tta.json'}")


def parse_scales(text: str) -> list[float]:
    """'0.75,1.25' to numbers. Raises UserError."""
    try:
        scales = [float(part) for part in text.split(",") if part]
    except ValueError:
        scales = [0.0]
    outside = [scale for scale in scales if not 0.25 <= scale <= 4 or scale == 1]
    if outside or len(set(scales)) < len(scales):
        raise UserError(f"--scales {text}: expected different numbers from 0.25 to 4 besides 1")
    return scales


if __name__ == "__main__":
    run(main)
