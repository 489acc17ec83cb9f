"""Package an experiment as a Kaggle kernel and the data set that feeds it; push both if asked.

examples:
  python src/package_kernel.py --owner NAME --experiment exp040 --fold 0,2 --no-tta --type script
  python src/package_kernel.py --owner NAME --competition SLUG --push
  python src/package_kernel.py --owner NAME --competition SLUG --submit 3 --format npy
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from nyuseg.utils.cli import Parser, add_oof, add_set, run
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, require_safe_name


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--owner", required=True, help="your user name on Kaggle")
    parser.add_argument("--experiment", default="exp060", help="its folder below --oof")
    parser.add_argument("--fold", default="all", help="0..4, 3, all (default), full, all,full")
    parser.add_argument("--no-tta", dest="tta", action="store_false", help="only the identity view")
    parser.add_argument("--format", default="npy,rle,png", help="files that the kernel writes")
    parser.add_argument("--precision", choices=["half", "fp32"], default="half", help="of weights")
    parser.add_argument("--competition", metavar="SLUG", help="whose data the kernel mounts")
    parser.add_argument("--type", choices=["notebook", "script"], default="notebook")
    parser.add_argument("--budget-hours", type=float, default=8.5, help="default 8.5")
    parser.add_argument("--title", help="of the kernel, before ' kernel'; default: the experiment")
    parser.add_argument("--licence", action="append", default=[], metavar="FILE", help="of weights")
    parser.add_argument("--push", action="store_true", help="upload with Kaggle's own client")
    parser.add_argument("--submit", type=int, metavar="VERSION", help="submit a finished version")
    parser.add_argument("--output", default=str(PROJECT / "kaggle_kernel"), metavar="DIR")
    add_set(parser, "what infer.py is given, such as submission.order=row")
    add_oof(parser)
    options = parser.parse_args(argv)
    require_safe_name(options.experiment, "--experiment")
    if (options.push or options.submit is not None) and not options.competition:
        raise UserError("--push and --submit need --competition SLUG, whose data the kernel reads")
    if options.push and options.submit is not None:
        raise UserError("--submit sends a version that has finished: --push first, alone")
    options.title = options.title or options.experiment
    (package if options.submit is None else submit)(options)


def package(options: Namespace) -> None:
    from nyuseg.data.fold_names import parse_folds
    from nyuseg.experiment.folder import open_experiment
    from nyuseg.kaggle.package import Options, build
    from nyuseg.kaggle.push import push
    from nyuseg.submission.formats import parse_formats

    experiment = open_experiment(options.experiment, Path(options.oof), options.overrides)
    folds = parse_folds(options.fold, experiment.config.folds)
    of_user = (options.owner, folds, options.tta, parse_formats(options.format), options.precision)
    rest = (options.competition, options.type, options.budget_hours, options.title, options.licence)
    facts = build(experiment, Options(*of_user, *rest), folder := Path(options.output))
    size = sum(path.stat().st_size for path in (folder / "dataset").iterdir()) / 1e6
    print(f"data set: {size:.1f} MB, version {facts.fingerprint[:12]}, {options.precision}")
    if options.push:
        print(push(folder / "dataset", folder / "kernel"))
    print(f"result: {folder}/dataset and {folder}/kernel")


def submit(options: Namespace) -> None:
    from nyuseg.kaggle import push as kaggle_push
    from nyuseg.kaggle.package import kernel_name
    from nyuseg.submission.formats import FILES, parse_formats

    if len(formats := parse_formats(options.format)) > 1:
        raise UserError("--submit: say which file the competition takes, --format npy, rle or png")
    kernel, file = kernel_name(options.owner, options.title), FILES[formats[0]]
    print(f"{file} of {kernel}, version {options.submit}")
    message = f"{options.experiment}, version {options.submit}"
    print(kaggle_push.submit(options.competition, kernel, options.submit, file, message))


if __name__ == "__main__":
    run(main)
