"""Predict the test images with the mean of an experiment's folds and write a submission folder.

examples:
  python src/infer.py --tta
  python src/infer.py --experiment exp040 --fold 0,2 --format rle
  python src/infer.py --tta --ray auto            images shared out over a Ray cluster
  python src/infer.py --tta --fold all,full       the folds and the networks on all images
  python src/infer.py --tta --input /kaggle/input/nyuv2 --submissions /kaggle/working
  python src/infer.py --tta --set submission.order=row --set submission.base=0
"""

from collections.abc import Sequence
from pathlib import Path

from nyuseg.utils.cli import Parser, add_input, add_oof, add_ray, add_set, given_input, run
from nyuseg.utils.files import PROJECT, require_safe_name


def main(argv: Sequence[str] | None = None) -> None:
    from nyuseg.data.fold_names import fold_list, parse_folds, subset_name, uncovered
    from nyuseg.data.integrity import require_clean
    from nyuseg.submission.formats import FILES, parse_formats

    parser = Parser(__doc__)
    parser.add_argument("--experiment", default="exp060", help="its folder below --oof")
    parser.add_argument("--fold", default="all", help="0..4, 3, all (default), full, all,full")
    parser.add_argument("--tta", action="store_true", help="average over all tta.views")
    add_ray(parser)
    some = f"some of {', '.join(FILES)}; default: all that the images allow"
    parser.add_argument("--format", help=some)
    add_input(parser, "test/")
    parser.add_argument(
        "--submissions", default=str(PROJECT / "submissions"), metavar="DIR", help="where to write"
    )
    add_oof(parser)
    add_set(parser, "such as submission.order=row or compute.predict_batch_size=2")
    options = parser.parse_args(argv)
    formats = parse_formats(options.format) if options.format else None
    require_safe_name(options.experiment, "--experiment")
    from nyuseg.evaluation.history import number
    from nyuseg.experiment.folder import open_experiment
    from nyuseg.experiment.training_data import require_input
    from nyuseg.inference.ray_prediction import OnRay
    from nyuseg.models.device import pick_devices
    from nyuseg.submission.writing import infer

    given = (options.overrides, given_input(options))
    experiment = open_experiment(options.experiment, Path(options.oof), *given)
    require_input(experiment, "test")
    folds = parse_folds(options.fold, experiment.config.folds)
    root = experiment.input
    subset = subset_name(folds, experiment.config.folds)
    name = options.experiment + subset + ("_tta" if options.tta else "")
    uses_depth = any(part.experiment.config.data.uses_depth for part in experiment.parts)
    require_clean(root, ["test"], uses_depth)
    folder = Path(options.submissions) / name
    views = experiment.config.tta.views[: None if options.tta else 1]
    said = ", ".join(view.name for view in views)
    print(f"{name}: folds [{fold_list(folds)}], views [{said}], data {root}")
    known = (experiment, folds, options.tta)
    elsewhere = OnRay(options.ray, *known) if options.ray is not None else None
    manifest = infer(*known, root, folder, formats, pick_devices(), elsewhere)
    cv = manifest.cv
    print(f"{manifest.images} images in {manifest.seconds} s, every file decoded and compared")
    if cv or not uncovered(folds):
        print(f"out-of-fold mIoU: {number(cv.miou) if cv else 'folds missing'}")
    if uncovered(folds):
        print(uncovered(folds))
    if manifest.notice:
        print(f"!! {manifest.notice} !!")
    print(f"result: {folder}")


if __name__ == "__main__":
    run(main)
