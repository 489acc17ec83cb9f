"""Estimate what an experiment takes on a device before it is run: memory, hours, disk, download.

examples:
  python src/plan.py --config configs/exp060.yaml
  python src/plan.py --config configs/*.yaml --device t4,a100
  python src/plan.py --config configs/exp060.yaml --device cpu --set train.batch_size=4
"""

from collections.abc import Sequence

from nyuseg.utils.cli import Parser, add_set, run
from nyuseg.utils.files import PROJECT, find


def main(argv: Sequence[str] | None = None) -> None:
    from nyuseg.config.loading import load_config

    parser = Parser(__doc__)
    parser.add_argument(
        "--config",
        nargs="+",
        default=[str(PROJECT / "configs/exp060.yaml")],
        help="default: configs/exp060.yaml",
    )
    parser.add_argument(
        "--device",
        default="t4",
        help="t4 (default), p100, v100, l4, rtx3090, rtx4090, a100, a100-80, h100, h200 or cpu; "
        "several with commas",
    )
    add_set(parser, "any key of the configuration, such as compute.checkpointing=true")
    options = parser.parse_args(argv)
    configs = [load_config(find(path), options.overrides) for path in options.config]
    from nyuseg.analysis.cards import find_card
    from nyuseg.analysis.plan import make_plan
    from nyuseg.analysis.plan_text import report
    from nyuseg.inference.probe import require_network
    from nyuseg.utils.progress import progress

    cards = [find_card(name) for name in options.device.split(",")]
    for config in progress(configs, "networks", len(configs), "network"):
        require_network(config)
    pairs = [(config, card) for card in cards for config in configs]
    title = f"{len(configs)} configurations"
    print(report([make_plan(*pair) for pair in progress(pairs, title, len(pairs), "plan")]))


if __name__ == "__main__":
    run(main)
