"""Measure how much a split of the training images leaks, and how optimistic its scores are.

Prints the share of validation images that have a room-mate in training, for folds at random and
by scene. For data without scenes.csv it looks for near-duplicates and proposes scenes. Experiments
below --oof that were trained on both splits are compared.

examples:
  python src/leakage.py
  python src/leakage.py --config configs/demo.yaml --input input/demo --labels input/demo/test_label
  python src/leakage.py --input /data/rooms --propose scenes.csv
"""

from collections.abc import Sequence
from pathlib import Path

from nyuseg.utils.cli import Parser, add_input, add_oof, add_set, given_input, run
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, find


def main(argv: Sequence[str] | None = None) -> None:
    from nyuseg.config.loading import load_config

    parser = Parser(__doc__)
    parser.add_argument("--config", default=str(PROJECT / "configs/exp060.yaml"))
    add_input(parser)
    parser.add_argument("--propose", metavar="FILE", help="write near-duplicates as a scenes.csv")
    parser.add_argument(
        "--distance", type=int, metavar="BITS", help="of near-duplicates' hashes, 0..64; default 8"
    )
    parser.add_argument(
        "--labels", metavar="DIR", help="hidden labels, to score the submissions of twins"
    )
    parser.add_argument(
        "--submissions", default=str(PROJECT / "submissions"), metavar="DIR", help="of infer.py"
    )
    add_oof(parser)
    add_set(parser, "any key of the configuration, such as folds.count=4")
    options = parser.parse_args(argv)
    from nyuseg.analysis.leakage import report
    from nyuseg.analysis.near_duplicates import BITS, DISTANCE

    config = load_config(find(options.config), options.overrides)
    distance = DISTANCE if options.distance is None else options.distance
    if not 0 <= distance <= BITS:
        raise UserError(f"--distance {distance}: must be 0..{BITS}")
    propose = Path(options.propose) if options.propose else None
    root = given_input(options)
    print(report(root or PROJECT / "input", config.folds.count, distance, propose), end="\n\n")
    labels = find(options.labels) if options.labels else None
    print(twins(Path(options.oof), root, Path(options.submissions), labels))


def twins(oof: Path, root: Path | None, submissions: Path, labels: Path | None) -> str:
    # torch takes seconds to import: only when the shares are on the screen.
    from nyuseg.analysis.twins import compare, find_twins, twin_table

    pairs = find_twins(oof, root)
    if pairs:
        return twin_table([compare(pair, submissions, labels) for pair in pairs])
    return (
        f"No experiment below {oof} has a twin that differs in the folds alone; train one with\n"
        "--set folds.group=random --set name=NEW_NAME added to the command that trained it."
    )


if __name__ == "__main__":
    run(main)
