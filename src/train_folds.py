"""Train folds of an experiment; when all are there, pool and score the out-of-fold masks.

examples:
  python src/train_folds.py --fold 0..4
  python src/train_folds.py --fold 3 --config configs/exp040.yaml --input /data/nyuv2
  python src/train_folds.py --fold all --set train.batch_size=4 --set name=exp060_b4
  python src/train_folds.py --fold 0..4 --parallel auto      a fold on each GPU, or on each core
  python src/train_folds.py --fold 0..4 --ray auto      a fold on each GPU of a Ray cluster
  python src/train_folds.py --fold all --config configs/exp060.yaml configs/exp093.yaml --seeds 1,2
  python src/train_folds.py --fold full                 three more, on all images, after the folds
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nyuseg.utils.cli import Parser, add_oof, add_ray, add_set, run
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, find


def main(argv: Sequence[str] | None = None) -> None:
    from nyuseg.config.loading import load_configs
    from nyuseg.data.fold_names import parse_folds, parse_parallel, parse_seeds
    from nyuseg.data.frames import require_training_depth
    from nyuseg.data.integrity import require_clean

    parser = Parser(__doc__)
    parser.add_argument("--fold", required=True, help="0..4, 3, 0,2, all or full")
    some = "of one experiment or several; default: configs/exp060.yaml"
    parser.add_argument("--config", nargs="+", action="extend", help=some)
    parser.add_argument(
        "--input", default=str(PROJECT / "input"), metavar="DIR", help="folder with train/"
    )
    add_set(parser, "any key of the configuration, such as train.epochs=1")
    parser.add_argument("--fresh", action="store_true", help="move an earlier run aside first")
    parser.add_argument("--parallel", metavar="N", help="folds side by side: a number, or auto")
    add_ray(parser)
    parser.add_argument("--seeds", help="such as 1,2: each configuration once for each of them")
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)  # One of --parallel.
    add_oof(parser)
    options = parser.parse_args(argv)
    paths = [find(path) for path in options.config or [str(PROJECT / "configs/exp060.yaml")]]
    configs = load_configs(paths, options.overrides, parse_seeds(options.seeds))
    folds = parse_folds(options.fold, *(config.folds for config in configs))
    parallel = parse_parallel(options.parallel)
    if None not in (options.parallel, options.ray):
        raise UserError("--parallel and --ray: one of them; Ray shares the devices out by itself")
    root = find(options.input)
    # torch takes seconds to import: only once the options are known to be good.
    from nyuseg.inference.probe import require_possible

    for config in configs:
        require_possible(config)
        require_clean(root, depth="depth" in config.training_kinds)
        require_training_depth(root, config)
    from nyuseg.training.engines import pick_engine
    from nyuseg.training.fold_process import follow_parent
    from nyuseg.training.pipeline import train

    if options.part:
        follow_parent()
    engine, at_once = pick_engine(Path(__file__).resolve(), parallel, options.ray)
    oof = Path(options.oof)
    train(configs, folds, root, oof, options.fresh, engine, at_once, scored=not options.part)


if __name__ == "__main__":
    run(main)
