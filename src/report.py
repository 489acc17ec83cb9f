"""Write a report of an experiment's out-of-fold predictions: scores, charts and all images.

The folder needs no server: open its index.html in a browser. Two experiments are shown side by
side.

examples:
  python src/report.py exp060
  python src/report.py exp060 mine --output /tmp/report
"""

from collections.abc import Sequence
from pathlib import Path

from nyuseg.utils.cli import Parser, add_input, add_oof, given_input, run
from nyuseg.utils.files import require_safe_name


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("experiment", nargs="+", help="one folder below --oof, or two")
    where = "default: EXPERIMENT/report below --oof, of two .compare/A_vs_B_report"
    parser.add_argument("--output", metavar="DIR", help=where)
    add_input(parser)
    add_oof(parser)
    options = parser.parse_args(argv)
    names = options.experiment
    for name in names:
        require_safe_name(name, "experiment")
    from nyuseg.experiment.folder import open_experiment
    from nyuseg.report.pages import INDEX, write_report

    oof, root = Path(options.oof), given_input(options)
    experiments = [open_experiment(name, oof, root=root) for name in names]
    alone = oof / names[0] / "report"
    default = alone if len(names) == 1 else oof / ".compare" / f"{'_vs_'.join(names)}_report"
    folder = Path(options.output) if options.output else default
    write_report(experiments, folder)
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"result: {folder / INDEX} ({megabytes:.1f} MB)")


if __name__ == "__main__":
    run(main)
