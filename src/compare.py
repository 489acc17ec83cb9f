"""Compare experiments on their out-of-fold masks, with intervals over rooms.

examples:
  python src/compare.py exp060 exp040
  python src/compare.py exp060 mine both --output /tmp/comparison
"""

from collections.abc import Sequence
from pathlib import Path

from nyuseg.utils.cli import Parser, add_input, add_oof, given_input, run
from nyuseg.utils.files import require_safe_name


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("experiment", nargs="+", help="folders below --oof; the first is the base")
    parser.add_argument("--output", metavar="DIR", help="default: .compare/A_vs_B below --oof")
    add_input(parser)
    add_oof(parser)
    options = parser.parse_args(argv)
    for name in options.experiment:
        require_safe_name(name, "experiment")
    from nyuseg.analysis.compare import compare
    from nyuseg.experiment.folder import open_experiment

    oof = Path(options.oof)
    root = given_input(options)
    experiments = [open_experiment(name, oof, root=root) for name in options.experiment]
    default = oof / ".compare" / "_vs_".join(options.experiment)
    folder = Path(options.output) if options.output else default
    print(compare(experiments, folder))
    print(f"\nresult: {folder} (table.txt, table.csv, plot.png)")


if __name__ == "__main__":
    run(main)
