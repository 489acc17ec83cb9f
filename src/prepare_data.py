"""Make or check a data folder in the competition's layout.

examples:
  python src/prepare_data.py demo                                       demo rooms in input/demo
  python src/prepare_data.py nyuv2 --mat nyu_depth_v2_labeled.mat       NYUv2 in input
  python src/prepare_data.py check --input input                        read everything once
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from nyuseg.utils.cli import Parser, add_set, run
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import PROJECT, find


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    demo = commands.add_parser(
        "demo",
        description="Write procedural rooms with hidden labels.\n\n"
        "example:\n  python src/prepare_data.py demo --output input/demo --seed 1",
    )
    demo.add_argument("--output", default=str(PROJECT / "input/demo"), metavar="DIR")
    demo.add_argument("--seed", type=int, default=0)
    nyuv2 = commands.add_parser(
        "nyuv2",
        description="Convert the official labelled file; goes on where it was interrupted.\n\n"
        "example:\n  python src/prepare_data.py nyuv2 --mat nyu_depth_v2_labeled.mat",
    )
    nyuv2.add_argument("--mat", required=True, help="nyu_depth_v2_labeled.mat (2.8 GB)")
    nyuv2.add_argument("--output", default=str(PROJECT / "input"), metavar="DIR")
    nyuv2.add_argument("--raw-depth", action="store_true", help="depth with holes, not in-filled")
    check = commands.add_parser(
        "check",
        description="Read everything once and list every fault; exit 1 if there is any.\n\n"
        "example:\n  python src/prepare_data.py check --input input",
    )
    check.add_argument("--input", default=str(PROJECT / "input"), metavar="DIR")
    check.add_argument("--config", default=str(PROJECT / "configs/exp060.yaml"))
    add_set(check, "such as data.depth_unit=sunrgbd")
    options = parser.parse_args(argv)
    {"demo": _demo, "nyuv2": _nyuv2, "check": _check}[options.command](options)


def _demo(options: Namespace) -> None:
    from nyuseg.demo.data import write_demo

    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: must be 0 or more")
    write_demo(Path(options.output), seed=options.seed)
    print(f"result: {options.output}")


def _nyuv2(options: Namespace) -> None:
    from nyuseg.data.nyuv2_mat import convert_mat

    convert_mat(find(options.mat), Path(options.output), options.raw_depth)
    print(f"result: {options.output}")


def _check(options: Namespace) -> None:
    from nyuseg.config.loading import load_config
    from nyuseg.data.depth_check import folder_lines
    from nyuseg.data.integrity import count_images, full_check

    root = find(options.input)
    config = load_config(find(options.config), options.overrides)
    if faults := full_check(root):
        print(*faults, sep="\n")
        raise UserError(f"{root}: {len(faults)} fault{'s' * (len(faults) > 1)}, listed above")
    print(f"no fault in {root}: {count_images(root)}")
    print(*folder_lines(root, config.data), sep="\n")


if __name__ == "__main__":
    run(main)
