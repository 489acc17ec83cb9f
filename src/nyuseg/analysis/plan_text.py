"""Plans for people: a page for one, a table a device for several."""

from collections.abc import Sequence
from itertools import groupby

from nyuseg.analysis.cards import Card
from nyuseg.analysis.plan import SLACK, TEST_IMAGES, Plan

# A notebook's GPU session ends after 12 hours; many competitions allow 9.
KERNEL_LIMIT = 9
COLUMNS = {"params M": 8, "GFLOP": 6, "batch": 5, "train GB": 8, "fits": 4, "most": 4, "train": 6}
COLUMNS |= {"test GB": 7, "test": 6, "disk GB": 7, "load MB": 7}
LEGEND = """\
GFLOP: forward, one training image. fits: this batch, into the memory. most: the largest batch that
fits. train: all folds. test: all test images, folds and views. load: encoder weights, downloaded.
"""


def report(plans: Sequence[Plan]) -> str:
    """One plan as a page, several as tables; what makes those fit that do not, and what the figures
    rest on."""
    groups = [(card, list(group)) for card, group in groupby(plans, lambda plan: plan.card)]
    parts = [_page(plans[0])] if len(plans) == 1 else [_table(*group) for group in groups]
    parts += [LEGEND] * (len(plans) > 1)
    parts += [_advice(plan) + "\n" for plan in plans if not plan.fits or _is_slow(plan)]
    bases = [_basis(card, group[0].config.compute.precision) for card, group in groups]
    return "\n".join([*parts, *bases])


def _page(plan: Plan) -> str:
    config = plan.config
    (height, width), folds = config.training_size, f"{config.folds.count} folds"
    verdict = "fits" if plan.fits else "does not fit"
    rows = {
        "network": f"{config.model.encoder} with {config.model.decoder}",
        "parameters": f"{_millions(plan.parameters)} million, {_millions(plan.encoder_parameters)} "
        "of them the encoder's",
        "operations": f"{plan.operations / 1e9:.1f} GFLOP: forward, an image of {height}x{width}",
        "memory": f"{_gb(plan.training_bytes)} GB to train at batch {config.train.batch_size}: "
        f"{verdict}; largest batch: {plan.largest_batch or 'none'}",
        "": f"{_gb(plan.prediction_bytes)} GB to predict with {folds}",
        "time": f"{_time(plan.training_hours)} to train {folds} of {config.train.epochs} epochs; "
        f"{_time(plan.full_hours)} for --fold full",
        " ": f"{_time(plan.kernel_hours)} to predict {TEST_IMAGES} images with {folds} and "
        f"{len(config.tta.views)} views, as a kernel does",
        "disk": f"{_gb(plan.disk_bytes)} GB, with the frame cache",
        "download": f"{plan.download_bytes / 1e6:.0f} MB of encoder weights",
    }
    lines = [f"{name:12}{text}" for name, text in rows.items()]
    return "\n".join([f"{config.name} on NYUv2, estimated for {_card(plan.card)}", *lines, ""])


def _table(card: Card, plans: Sequence[Plan]) -> str:
    wide = max(18, *(len(plan.config.name) for plan in plans))
    head = "".join(f" {name:>{width}}" for name, width in COLUMNS.items())
    lines = [f"NYUv2, estimated for {_card(card)}", f"{'configuration':{wide}}{head}"]
    for plan in plans:
        cells = (
            _millions(plan.parameters),
            f"{plan.operations / 1e9:.0f}",
            plan.config.train.batch_size,
            _gb(plan.training_bytes),
            "yes" if plan.fits else "no",
            plan.largest_batch or "none",
            _time(plan.training_hours),
            _gb(plan.prediction_bytes),
            _time(plan.kernel_hours),
            _gb(plan.disk_bytes),
            f"{plan.download_bytes / 1e6:.0f}",
        )
        row = "".join(f" {c:>{w}}" for c, w in zip(cells, COLUMNS.values(), strict=True))
        lines.append(f"{plan.config.name:{wide}}{row}")
    return "\n".join([*lines, ""])


def _advice(plan: Plan) -> str:
    """What to do about a plan that does not fit into the memory or the time."""
    where, lines = f"{plan.config.name} on {plan.card.name}", []
    if not plan.fits:
        none = ["no setting: take a device with more memory, or a smaller augment.crop"]
        lines += [f"{where} fits with"]
        lines += [f"  {remedy}" for remedy in plan.remedies or none]
    if _is_slow(plan):
        lines += [
            f"{where} predicts for {_time(plan.kernel_hours)}, Kaggle's limit is "
            f"{KERNEL_LIMIT} to 12 h: package fewer folds (--fold), or --no-tta"
        ]
    return "\n".join(lines)


def _is_slow(plan: Plan) -> bool:
    return plan.kernel_hours > KERNEL_LIMIT


def _basis(card: Card, precision: str) -> str:
    """What the estimates of a device assume."""
    measured = "" if card.gpu else ", as measured just now"
    peak, share = card.peak(precision) / 1e12, card.share(precision)
    return (
        f"{card.name}: estimates, nothing was run. Memory: {SLACK:g} times what tensors take at "
        f"once, and {card.base / 1e9:g} GB.\nTime: at {share:.0%} of {peak:.3g} TFLOP/s, its "
        f"matrix products{measured}, if reading keeps up."
    )


def _card(card: Card) -> str:
    kind = "" if card.gpu else ", this machine"
    return f"{card.name}{kind} ({_gb(card.memory)} GB)"


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f}"


def _time(hours: float) -> str:
    if hours < 1:
        return f"{max(1, hours * 60):.0f} min"
    return f"{hours:.1f} h" if hours < 100 else f"{hours:.0f} h"
