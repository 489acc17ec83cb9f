"""Write a report of an experiment's predictions: scores, charts and all images.

The folder needs no server: open its index.html in a browser. Two experiments are shown side by
side. Of a submission it shows how sure it is, and where the folds disagree.

examples:
  python src/report.py exp060
  python src/report.py exp060 mine --output /tmp/report
  python src/report.py --submission exp060_tta
"""

from collections.abc import Sequence
from pathlib import Path

from nyuseg.utils.cli import Parser, add_input, add_oof, add_set, given_input, run
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, require_safe_name


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("experiment", nargs="*", help="a folder below --oof, or two")
    parser.add_argument("--submission", metavar="NAME", help="a folder below --submissions instead")
    where = "default: EXPERIMENT/report below --oof, of two .compare/A_vs_B_report, NAME/report"
    parser.add_argument("--output", metavar="DIR", help=where)
    add_input(parser)
    parser.add_argument("--submissions", default=str(PROJECT / "submissions"), metavar="DIR")
    add_oof(parser)
    add_set(parser, "what --submission was made with, such as tta.views=...")
    options = parser.parse_args(argv)
    names, submission = options.experiment, options.submission
    if bool(names) == bool(submission):
        raise UserError("name an experiment, two of them, or a submission by --submission NAME")
    if names and options.overrides:
        raise UserError("--set: only with --submission; the out-of-fold predictions are there")
    for name in [*names, *([submission] if submission else [])]:
        require_safe_name(name, "name")
    from nyuseg.experiment.folder import open_experiment
    from nyuseg.experiment.training_data import require_input
    from nyuseg.models.device import pick_devices
    from nyuseg.report.out_of_fold import write_report
    from nyuseg.report.pages import INDEX
    from nyuseg.report.submitted import write_submission_report
    from nyuseg.submission.manifest import MANIFEST, Manifest

    oof, root = Path(options.oof), given_input(options)
    if submission:
        home = Path(options.submissions) / submission
        manifest = Manifest.read(home / MANIFEST)
        experiment = open_experiment(manifest.experiment, oof, options.overrides, root)
        require_input(experiment, "test")
        folder = Path(options.output or home / "report")
        known = submission, experiment, manifest, experiment.input
        write_submission_report(*known, folder, pick_devices())
    else:
        two = oof / ".compare" / f"{'_vs_'.join(names)}_report"
        folder = Path(options.output or (oof / names[0] / "report" if len(names) == 1 else two))
        experiments = [open_experiment(name, oof, root=root) for name in names]
        write_report(experiments, folder)
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"result: {folder / INDEX} ({megabytes:.1f} MB)")


if __name__ == "__main__":
    run(main)
