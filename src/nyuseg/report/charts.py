"""The charts of the score page, as what Plotly draws: dicts of `data` and `layout`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from nyuseg.data.classes import CLASS_NAMES
from nyuseg.evaluation.metrics import class_iou, mean_iou
from nyuseg.evaluation.tables import EXP060_IOU
from nyuseg.experiment.folder import Experiment
from nyuseg.report.gather import Measures
from nyuseg.report.partitions import Partition

# Told apart by the colour-blind: Okabe and Ito, without the yellow that white hides.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
Chart = dict[str, Any]


def class_chart(names: Sequence[str], folds: Sequence[np.ndarray], reported: bool) -> Chart:
    """IoU of each class, with the range over folds, of each experiment.

    folds: of each experiment, a confusion matrix for each fold, int [folds,13,13]. reported:
    whether the numbers of Exp060's author belong beside them.
    """
    traces: list[Chart] = []
    for number, (name, confusions) in enumerate(zip(names, folds, strict=True)):
        iou, each = class_iou(confusions.sum(0)), class_iou(confusions)
        spread = {
            "type": "data",
            "array": _numbers(np.nanmax(each, 0, initial=0) - iou),
            "arrayminus": _numbers(iou - np.nanmin(each, 0, initial=1)),
        }
        bar: Chart = {"type": "bar", "name": name, "x": list(CLASS_NAMES), "y": _numbers(iou)}
        traces.append({**bar, "error_y": spread, "marker": {"color": COLOURS[number]}})
    if reported:
        marker = {"symbol": "diamond", "size": 9, "color": COLOURS[3]}
        found: Chart = {"x": list(CLASS_NAMES), "y": list(EXP060_IOU), "marker": marker}
        traces.append({"type": "scatter", "mode": "markers", "name": "Exp060, reported", **found})
    return _chart("IoU by class; lines: from the worst to the best fold", traces, "IoU")


def part_chart(partition: Partition, names: Sequence[str], measures: Sequence[Measures]) -> Chart:
    """mIoU within each part of a partition, of each experiment; the share of pixels on hovering."""
    traces = []
    for number, (name, measure) in enumerate(zip(names, measures, strict=True)):
        counts = measure.parts[partition.title]
        share = counts.sum((1, 2)) / max(1, counts.sum())
        bar: Chart = {"type": "bar", "name": name, "x": list(partition.all_names)}
        bar |= {"y": _numbers(mean_iou(counts)), "marker": {"color": COLOURS[number]}}
        bar["text"] = [f"{part:.0%} of the pixels" for part in share]
        traces.append({**bar, "hovertemplate": "%{x}: %{y:.3f}<br>%{text}", "textposition": "none"})
    return _chart(partition.title, traces, "mIoU")


def calibration_chart(names: Sequence[str], measures: Sequence[Measures]) -> Chart:
    """How often the likeliest class is right, by how likely it was said to be."""
    line: Chart = {"type": "scatter", "mode": "lines", "name": "as said", "x": [0, 1], "y": [0, 1]}
    traces: list[Chart] = [{**line, "line": {"dash": "dot", "color": "#888888"}}]
    for number, (name, measure) in enumerate(zip(names, measures, strict=True)):
        count, right, said = measure.calibration
        seen = count > 0
        x, y = said[seen] / count[seen], right[seen] / count[seen]
        points: Chart = {
            "type": "scatter",
            "mode": "lines+markers",
            "x": _numbers(x),
            "y": _numbers(y),
        }
        error = calibration_error(measure)
        points |= {"name": f"{name}, error {error:.3f}", "line": {"color": COLOURS[number]}}
        traces.append(points)
    chart = _chart("Calibration: probability of the likeliest class", traces, "share that is right")
    chart["layout"]["xaxis"] = {"title": {"text": "probability"}, "range": [0, 1]}
    return chart


def calibration_error(measures: Measures) -> float:
    """Mean distance between said and seen over the bins, weighted by count (Naeini et al. 2015)."""
    count, right, said = measures.calibration
    return float(np.abs(right - said).sum() / max(1, count.sum()))


def share_chart(submitted: np.ndarray, training: np.ndarray | None) -> Chart:
    """Share of each class in a submission beside that in the training labels, where they are known;
    pixels, int [13]."""
    traces: list[Chart] = []
    for number, (name, pixels) in enumerate((("submission", submitted), ("training", training))):
        if pixels is None:
            continue
        bar: Chart = {"type": "bar", "name": name, "x": list(CLASS_NAMES)}
        shares = _numbers(100 * pixels / max(1, pixels.sum()))
        traces.append({**bar, "y": shares, "marker": {"color": COLOURS[number]}})
    return _chart("Share of each class, per cent of the pixels", traces, "%")


def curve_chart(experiments: Sequence[Experiment], column: str, title: str) -> Chart:
    """A column of metrics.csv over the epochs, a line for each fold; none of a blend."""
    traces = []
    for number, experiment in enumerate(experiments):
        for fold in range(experiment.config.folds.count):
            path = experiment.fold_files(fold).metrics
            if not path.exists():
                continue
            table = pd.read_csv(path)
            line: Chart = {"type": "scatter", "mode": "lines", "x": table["epoch"].tolist()}
            line |= {"y": _numbers(table[column]), "name": f"{experiment.config.name}, fold {fold}"}
            colour = COLOURS[(number if len(experiments) > 1 else fold) % len(COLOURS)]
            traces.append({**line, "line": {"color": colour}})
    chart = _chart(title, traces, "")
    chart["layout"]["xaxis"] = {"title": {"text": "epoch"}}
    return chart


def _chart(title: str, traces: list[Chart], y: str) -> Chart:
    layout = {
        "title": {"text": title, "x": 0, "font": {"size": 15}},
        "yaxis": {"title": {"text": y}},
        "margin": {"l": 50, "r": 10, "t": 40, "b": 50},
        "legend": {"orientation": "h", "y": -0.2},
        "height": 340,
    }
    return {"data": traces, "layout": layout}


def _numbers(values: Any) -> list[float | None]:
    """For JSON: what is no number is null, which Plotly leaves out."""
    return [None if np.isnan(value) else round(float(value), 5) for value in np.asarray(values)]
