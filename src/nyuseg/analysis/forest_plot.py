"""Forest plots: estimates with their intervals."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from nyuseg.experiment.records import Estimate

INCHES_A_ROW, WIDTH = 0.32, 8.0


def forest_plot(
    rows: Sequence[str], series: Mapping[str, Sequence[Estimate]], title: str, axis: str
) -> bytes:
    """A PNG file: a row for each name, in each a point with its interval for each series.

    series: by name, an estimate for each row; one that is not a number leaves its place empty.
    """
    count = len(series)
    height = INCHES_A_ROW * len(rows) * max(1, 0.5 * count)
    figure = Figure(figsize=(WIDTH, 1.6 + height))
    axes = figure.subplots()
    for number, (name, estimates) in enumerate(series.items()):
        values, low, high = np.array([[e.value, e.low, e.high] for e in estimates]).T
        heights = np.arange(len(rows)) + (number - (count - 1) / 2) * 0.7 / count
        # A skewed interval may leave its value out.
        spans = np.maximum([values - low, high - values], 0)
        axes.errorbar(
            values, heights, xerr=spans, fmt="o", markersize=4, capsize=2, label=name, zorder=3
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.4, -0.6)  # From the top down.
    axes.axhline(len(rows) - 1.5, color="grey", linewidth=0.6)  # The last row is the mean.
    axes.grid(axis="x", color="0.9", zorder=0)
    axes.set_xlabel(axis)
    axes.set_title(title, loc="left", fontsize=10)
    # Below the rows: inside it would hide intervals.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.7 / height), fontsize=8, ncols=3)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, bbox_inches="tight")
    return buffer.getvalue()
