"""Train folds of an experiment; when all are there, pool and score the out-of-fold masks.

examples:
  python src/train_folds.py --fold 0..4
  python src/train_folds.py --fold 3 --config configs/exp040.yaml --input /data/nyuv2
  python src/train_folds.py --fold all --set train.batch_size=4 --set name=exp060_b4
  python src/train_folds.py --fold 0..4 --parallel auto      a fold on each GPU, or on each core
  python src/train_folds.py --fold full                 three more, on all images, after the folds
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nyuseg.utils.cli import Parser, add_oof, add_set, run
from nyuseg.utils.files import PROJECT, find


def main(argv: Sequence[str] | None = None) -> None:
    from nyuseg.config.loading import load_config
    from nyuseg.data.fold_names import parse_folds, parse_parallel
    from nyuseg.data.frames import require_training_depth
    from nyuseg.data.integrity import require_clean

    parser = Parser(__doc__)
    parser.add_argument("--fold", required=True, help="0..4, 3, 0,2, all or full")
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
    parser.add_argument("--parallel", metavar="N", help="folds side by side: a number, or auto")
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)  # One of --parallel.
    add_oof(parser)
    options = parser.parse_args(argv)
    config = load_config(find(options.config), options.overrides)
    folds = parse_folds(options.fold, config.folds)
    count = parse_parallel(options.parallel or "auto")
    root = find(options.input)
    # torch takes seconds to import: only once the options are known to be good.
    from nyuseg.inference.probe import require_possible

    require_possible(config)
    require_clean(root, depth="depth" in config.training_kinds)
    require_training_depth(root, config)
    from nyuseg.training.pipeline import train

    known = config, folds, root, Path(options.oof), options.fresh
    from nyuseg.training.side_by_side import follow_parent, side_by_side

    if options.part:
        follow_parent()
    if options.parallel is None:
        train(*known, scored=not options.part)
        return
    command = [sys.executable, str(Path(__file__).resolve()), "--part", "--config", options.config]
    command += ["--input", str(root), "--oof", options.oof]
    command += [f"--set={override}" for override in options.overrides]
    train(*known, side_by_side(command, count))


if __name__ == "__main__":
    run(main)
