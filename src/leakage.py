"""Measure how much a split of the training images leaks.

Prints the share of validation images that have a room-mate in training, for folds at random and
by scene. What that flatters, compare.py shows with experiments trained on either.

examples:
  python src/leakage.py
  python src/leakage.py --config configs/demo.yaml --input input/demo
"""

from collections.abc import Sequence

from nyuseg.utils.cli import Parser, add_set, run
from nyuseg.utils.files import PROJECT, find


def main(argv: Sequence[str] | None = None) -> None:
    from nyuseg.analysis.leakage import report
    from nyuseg.config.loading import load_config

    parser = Parser(__doc__)
    parser.add_argument("--config", default=str(PROJECT / "configs/exp060.yaml"))
    parser.add_argument(
        "--input", default=str(PROJECT / "input"), metavar="DIR", help="folder with train/"
    )
    add_set(parser, "any key of the configuration, such as folds.count=4")
    options = parser.parse_args(argv)
    config = load_config(find(options.config), options.overrides)
    print(report(find(options.input), config.folds.count))


if __name__ == "__main__":
    run(main)
