"""Train folds of an experiment; when all are there, pool and score the out-of-fold masks.

examples:
  python src/train_folds.py --fold 0..4
  python src/train_folds.py --fold 3 --config configs/exp040.yaml --input /data/nyuv2
  python src/train_folds.py --fold all --set train.batch_size=4 --set name=exp060_b4
"""

from collections.abc import Sequence
from pathlib import Path

from nyuseg.cli import Parser, add_oof, add_set, run
from nyuseg.files import PROJECT, find


def main(argv: Sequence[str] | None = None) -> None:
    from nyuseg.config import load_config
    from nyuseg.folds import parse_folds
    from nyuseg.frames import require_training_depth
    from nyuseg.integrity import require_clean

    parser = Parser(__doc__)
    parser.add_argument("--fold", required=True, help="0..4, 3, 0,2 or all")
    parser.add_argument(
        "--config",
        default=str(PROJECT / "configs/exp060.yaml"),
        help="default: configs/exp060.yaml",
    )
    parser.add_argument(
        "--input", default=str(PROJECT / "input"), metavar="DIR", help="folder with train/"
    )
    add_set(parser, "any key of the configuration, such as train.epochs=1")
    parser.add_argument("--fresh", action="store_true", help="move an earlier run aside first")
    add_oof(parser)
    options = parser.parse_args(argv)
    config = load_config(find(options.config), options.overrides)
    folds = parse_folds(options.fold, config.folds.count)
    root = find(options.input)
    # torch takes seconds to import: only once the options are known to be good.
    from nyuseg.probe import require_possible

    require_possible(config)
    require_clean(root)
    require_training_depth(root, config)
    train(config, folds, root, Path(options.oof), options.fresh)


def train(config, folds, root, oof, fresh) -> None:
    from nyuseg.device import environment, pick_device
    from nyuseg.experiment import create_experiment
    from nyuseg.fit import FoldTrainer, check_folds
    from nyuseg.oof import pool, write_oof
    from nyuseg.report import cv_table
    from nyuseg.space import require_space

    device = pick_device()
    experiment = create_experiment(config, root, oof, fresh)
    facts = environment(device, config.train.precision)
    print(f"{config.name}: {facts['device']}, {facts['precision']}, data {root}")
    if experiment.notice:
        print(f"!! {experiment.notice} !!")
    todo = [fold for fold in folds if not experiment.is_finished(fold)]
    check_folds(experiment, todo)
    require_space(experiment, todo)
    for fold in folds:
        if experiment.is_finished(fold):
            print(f"fold {fold}: already finished, skipped")
            continue
        with experiment.lock(fold):
            FoldTrainer(experiment, fold, device).run()
            write_oof(experiment, fold, device)
    unfinished = [k for k in range(config.folds.count) if not experiment.is_finished(k)]
    if unfinished:
        print(f"out-of-fold scores follow when fold {unfinished} is finished: {experiment.folder}")
        return
    print("\n" + cv_table(pool(experiment, device)))
    print(f"\nresult: {experiment.folder / 'cv.json'}")


if __name__ == "__main__":
    run(main)
