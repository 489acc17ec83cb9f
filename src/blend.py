"""Blend experiments: weights chosen on out-of-fold probabilities, judged on rooms they never saw.

examples:
  python src/blend.py exp060 mine
  python src/blend.py exp060 mine other --name three
  python src/infer.py --experiment three --tta
"""

from collections.abc import Sequence
from pathlib import Path

from nyuseg.utils.cli import Parser, add_input, add_oof, given_input, run
from nyuseg.utils.files import require_safe_name


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("experiment", nargs="+", help="folders below --oof, two or more")
    parser.add_argument("--name", help="of the blend; default: blend_ and the members' names")
    add_input(parser)
    add_oof(parser)
    options = parser.parse_args(argv)
    name = options.name or "_".join(["blend", *options.experiment])
    for text in (*options.experiment, name):
        require_safe_name(text, "--name" if text == name else "experiment")
    from nyuseg.ensembling.blend import blend
    from nyuseg.evaluation.tables import blend_table
    from nyuseg.experiment.folder import open_experiment

    oof = Path(options.oof)
    root = given_input(options)
    members = [open_experiment(one, oof, root=root) for one in options.experiment]
    result = blend(members, oof / name)
    print(f"\n{blend_table(result)}")
    notice = members[0].notice
    if notice:
        print(f"!! {notice} !!")
    print(f"\nresult: {oof / name}; predict with 'python src/infer.py --experiment {name} --tta'")


if __name__ == "__main__":
    run(main)
