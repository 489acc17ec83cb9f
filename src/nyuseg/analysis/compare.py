"""Experiments side by side: what differs beyond chance, and what it cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError

from nyuseg.analysis.forest_plot import forest_plot
from nyuseg.data.classes import CLASS_NAMES
from nyuseg.data.folds import NYUV2, fold_hash
from nyuseg.evaluation.bootstrap import class_differences, class_scores, difference, score
from nyuseg.evaluation.history import number, read_seconds
from nyuseg.evaluation.metrics import mean_iou, summarize
from nyuseg.evaluation.oof import check_pooling, image_confusions
from nyuseg.evaluation.tables import difference_text
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.records import Estimate
from nyuseg.models.tensors import tensor_sizes
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import atomic_folder, write_bytes, write_text
from nyuseg.utils.locks import only_writer

REPORTED = NYUV2 / "reported.csv"
TABLE = "table.csv"
# What a weights file holds besides parameters: BatchNorm's statistics.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Column:
    """What is known of an experiment; differences are to the first one, None for itself.

    confusions: int [n,13,13], in the first one's order of images. scores: IoU of the 13 classes,
    then the mean. gains: a difference for each of them. What is not known is NaN.
    """

    name: str
    short_notice: str
    confusions: np.ndarray
    scores: list[Estimate]
    accuracy: float
    gains: list[Estimate] | None
    folds: list[float]
    parameters: float
    seconds: float


def compare(experiments: Sequence[Experiment], folder: Path) -> str:
    """Compare the out-of-fold masks of some experiments; writes `folder` and returns its table.

    table.txt, table.csv and plot.png. Raises UserError, naming them, for experiments of other
    images or data than the first one's, for one named twice, and for folds or masks that are
    missing.
    """
    check(experiments)
    scenes, ids = experiments[0].table["scene"], experiments[0].table["image_id"]
    columns: list[Column] = []
    for experiment in experiments:
        base = columns[0].confusions if columns else None
        columns.append(_column(experiment, ids, scenes, base))
    text = compare_table(columns, _notes(experiments))
    with only_writer(folder), atomic_folder(folder, TABLE) as inside:
        write_text(inside / "table.txt", text + "\n")
        write_text(inside / TABLE, _frame(columns).to_csv(index=False))
        write_bytes(inside / "plot.png", _plot(columns))
    return text


def check(experiments: Sequence[Experiment]) -> None:
    """Raise UserError unless all are finished and of the same images and data."""
    base = experiments[0]
    for place, experiment in enumerate(experiments):
        if experiment.folder in [one.folder for one in experiments[:place]]:
            raise UserError(f"{experiment.folder}: named twice; name each experiment once")
        if not experiment.members:
            check_pooling(experiment)
        if set(experiment.table["image_id"]) != set(base.table["image_id"]):
            raise UserError(f"{experiment.folder}: other images than those of {base.folder}")
        if experiment.data_digest != base.data_digest:
            raise UserError(f"{experiment.folder}: trained on other data than {base.folder}")


def _column(
    experiment: Experiment, ids: Sequence[str], scenes: Sequence[str], base: np.ndarray | None
) -> Column:
    """All about an experiment; ids and scenes: the order of images that `base` has."""
    own, table = image_confusions(experiment), experiment.table
    sides = [own[table["fold"] == fold].sum(0) for fold in range(experiment.config.folds.count)]
    place = {image_id: index for index, image_id in enumerate(table["image_id"])}
    found = own[[place[image_id] for image_id in ids]]
    gains = None
    if base is not None:
        gains = [*class_differences(found, base, scenes), difference(found, base, scenes)]
    parts = [part.experiment for part in experiment.parts]
    accuracy = summarize(own.sum(0))["pixel_accuracy"]
    return Column(
        name=experiment.config.name,
        short_notice=experiment.short_notice,
        confusions=found,
        scores=[*class_scores(found, scenes), score(found, scenes)],
        accuracy=math.nan if accuracy is None else accuracy,
        gains=gains,
        folds=[float(mean_iou(side)) for side in sides],
        parameters=sum(count_parameters(part) for part in parts),
        seconds=sum(training_seconds(part) for part in parts),
    )


def count_parameters(experiment: Experiment) -> float:
    """Numbers that training fits in one network, without BatchNorm's statistics; NaN if unknown.

    Raises UserError, naming the file, for weights that are cut short.
    """
    path = experiment.fold_files(0).weights
    if not path.exists():
        return math.nan
    try:
        sizes = tensor_sizes(path)
        return sum(size for name, size in sizes.items() if not name.endswith(STATISTICS))
    except SafetensorError:
        raise UserError(f"{path}: not whole weights; copy the fold again") from None


def training_seconds(experiment: Experiment) -> float:
    """Seconds of all epochs of all folds, from their metrics.csv; NaN where one is not known."""
    total = 0.0
    for fold in range(experiment.config.folds.count):
        seconds = read_seconds(experiment.fold_files(fold).metrics)
        known = len(seconds) == experiment.config.train.epochs
        total += sum(seconds.values()) if known else math.nan
    return total


def _notes(experiments: Sequence[Experiment]) -> list[str]:
    """What a reader of the table must know."""
    base = experiments[0]
    rooms = base.table["scene"].nunique()
    notes = [
        f"{len(base.table)} images of {rooms} rooms; intervals: 95 %, over rooms; differences to "
        f"{base.config.name}, on the same draws"
    ]
    other = [one for one in experiments if fold_hash(one.table) != fold_hash(base.table)]
    notes += [f"! {one.config.name} has other folds: its networks saw other rooms" for one in other]
    notes += [f"!! {one.config.name}: {one.notice} !!" for one in experiments if one.notice]
    return notes


def compare_table(columns: Sequence[Column], notes: Sequence[str]) -> str:
    """The comparison as text; reported numbers stand apart."""
    width = max(
        12, *(len(text) + 2 for column in columns for text in (column.name, column.short_notice))
    )

    def line(title: str, texts: Sequence[str]) -> str:
        return f"{title:16}" + "".join(f"{text:>{width}}" for text in texts)

    lines = [*notes, "", line("", [column.name for column in columns])]
    if any(column.short_notice for column in columns):
        lines.append(line("", [column.short_notice for column in columns]))
    for k, name in enumerate((*CLASS_NAMES, "mIoU")):
        lines.append(line(name, [number(column.scores[k].value) for column in columns]))
    lines.append(line("pixel accuracy", [number(column.accuracy) for column in columns]))
    for fold in range(max(len(column.folds) for column in columns)):
        texts = [number(c.folds[fold]) if fold < len(c.folds) else "-" for c in columns]
        lines.append(line(f"fold {fold}, mIoU", texts))
    lines.append(line("parameters, M", [number(c.parameters / 1e6, 1) for c in columns]))
    lines.append(line("training, h", [number(c.seconds / 3600, 2) for c in columns]))
    lines += ["", f"{'':{width + 2}}{'mIoU':>8}{'':17}{'difference':>28}{'P(better)':>11}"]
    return "\n".join([*lines, *(_score_line(column, width) for column in columns), *_reported()])


def _score_line(column: Column, width: int) -> str:
    miou = column.scores[-1]
    interval = f"[{number(miou.low):>6}..{number(miou.high):>6}]"
    line = f"{column.name:{width + 2}}{number(miou.value):>8} {interval}"
    if column.gains:
        gain = column.gains[-1]
        line += f"{difference_text(gain):>28}{number(gain.p_above, 3):>11}"
    return f"{line}  {column.short_notice}".rstrip()


def _reported() -> list[str]:
    table = pd.read_csv(REPORTED)
    rows = [
        f"{row.experiment:10}{row.what:38}{row.folds:>6}{number(row.validation):>12}"
        f"{row.leaderboard:13.5f}"
        for row in table.itertuples()
    ]
    return [
        "",
        "Reported by the author of Exp060 on NYUv2, not measured here (80/20: one random split,",
        "which leaks; 5: out-of-fold, five folds):",
        f"{'':48}{'folds':>6}{'validation':>12}{'leaderboard':>13}",
        *rows,
    ]


def _frame(columns: Sequence[Column]) -> pd.DataFrame:
    """A row for each experiment and class, and one for the mean."""
    rows = []
    for column in columns:
        for k, name in enumerate((*CLASS_NAMES, "mIoU")):
            gain = column.gains[k].model_dump() if column.gains else {}
            row: dict[str, Any] = {"experiment": column.name, "class": name}
            own = column.scores[k]
            row |= {"iou": own.value, "iou_low": own.low, "iou_high": own.high}
            row |= {f"difference_{key}": value for key, value in gain.items()}
            rows.append({**row, "notice": column.short_notice})
    return pd.DataFrame(rows)


def _plot(columns: Sequence[Column]) -> bytes:
    """Differences to the first experiment by class; of a single one its own values."""
    names = [*CLASS_NAMES, "mIoU"]
    base, *others = columns
    if others:
        series = {_tagged(column): column.gains or [] for column in others}
        title = f"difference to {_tagged(base)}, 95 % over rooms"
        return forest_plot(names, series, title, "difference of IoU (right: better)")
    title = f"{_tagged(base)}, 95 % over rooms"
    return forest_plot(names, {_tagged(base): base.scores}, title, "IoU")


def _tagged(column: Column) -> str:
    return f"{column.name} ({column.short_notice})" if column.short_notice else column.name
