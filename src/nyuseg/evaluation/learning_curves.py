"""Learning curves of a fold as a picture, for whoever watches it train."""

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nyuseg.evaluation.history import Epoch

INCHES, DPI = (12.0, 6.0), 80
# A layout that matplotlib works out takes as long as the drawing.
LAYOUT = {"left": 0.05, "right": 0.985, "top": 0.88, "bottom": 0.06, "wspace": 0.18, "hspace": 0.3}
TRAINING, HELD_OUT, BEST = "#0072b2", "#d55e00", "#009e73"  # Told apart by the colour-blind.


def learning_curves(
    title: str, epochs: int, history: Sequence[Epoch], seconds: Mapping[int, float]
) -> bytes:
    """A PNG file: the parts of the loss, scores with the best epoch marked, learning rate, time.

    epochs: how many there will be, the width of each panel. history: at least one. What was not
    measured, as on a network that trains on all images, is left out.
    """
    figure = Figure(figsize=INCHES, dpi=DPI)
    figure.subplots_adjust(**LAYOUT)
    figure.suptitle(title, x=LAYOUT["left"], ha="left")
    segmentation, depth, total, miou, rates, times = figure.subplots(2, 3, sharex=True).ravel()
    for axes, key, name in (
        (segmentation, "segmentation", "segmentation loss"),
        (depth, "depth", "depth loss"),
        (total, "loss", "weighted sum of both"),
    ):
        _line(axes, history, f"train_{key}", TRAINING, "training")
        _line(axes, history, f"valid_{key}", HELD_OUT, "held out")
        axes.set_title(name, fontsize=10)
    _line(miou, history, "valid_miou", HELD_OUT, "mIoU")
    _line(miou, history, "valid_pixel_accuracy", "0.5", "pixel accuracy")
    _mark_best(miou, history)
    miou.set_title("held-out images", fontsize=10)
    _line(rates, history, "lr", TRAINING)
    rates.ticklabel_format(axis="y", scilimits=(-2, 3))
    rates.set_title("learning rate", fontsize=10)
    times.bar(list(seconds), list(seconds.values()), color=TRAINING)
    times.set_title("seconds an epoch", fontsize=10)
    for axes in figure.axes:
        _finish(axes, epochs)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _finish(axes: Axes, epochs: int) -> None:
    axes.set_xlim(0.5, epochs + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def _line(axes: Axes, history: Sequence[Epoch], key: str, color: str, label: str = "") -> None:
    known = [(row.epoch, value) for row in history if (value := getattr(row, key)) is not None]
    if known:
        axes.plot(*zip(*known, strict=True), color=color, label=label, marker=".")


def _mark_best(axes: Axes, history: Sequence[Epoch]) -> None:
    known = [(row.valid_miou, -row.epoch) for row in history if row.valid_miou is not None]
    if known:
        score, epoch = max(known)
        label = f"best, epoch {-epoch}: {score:.4f}"
        axes.plot([-epoch], [score], "*", color=BEST, markersize=12, label=label)
