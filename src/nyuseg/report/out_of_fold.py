"""The report of out-of-fold predictions: what its score page says."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nyuseg.analysis.compare import check
from nyuseg.data.classes import CLASS_NAMES, NUM_CLASSES, PALETTE
from nyuseg.data.folds import fold_hash, is_nyuv2
from nyuseg.evaluation.bootstrap import difference, score
from nyuseg.evaluation.metrics import class_iou, summarize
from nyuseg.evaluation.tables import EXP060_IOU, difference_text
from nyuseg.experiment.folder import Experiment
from nyuseg.experiment.records import CrossValidation
from nyuseg.experiment.training_data import require_same_data
from nyuseg.inference.loading import require_unchanged
from nyuseg.report.charts import Chart, calibration_chart, class_chart, curve_chart, part_chart
from nyuseg.report.gather import PARTITIONS, Gatherer, Measures
from nyuseg.report.pages import MARKER, Pages
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import atomic_folder
from nyuseg.utils.locks import only_writer

MOST = 2  # Experiments side by side.


def write_report(experiments: Sequence[Experiment], folder: Path) -> None:
    """Write the report of an experiment, or of two, with their out-of-fold predictions.

    Raises UserError for more of them, for what compare.check refuses and without Plotly.
    """
    if len(experiments) > MOST:
        raise UserError(f"a report shows {MOST} experiments at most, not {len(experiments)}")
    check(experiments)
    for experiment in experiments:
        require_same_data(experiment)
        require_unchanged(experiment)
    records = [CrossValidation.read(experiment.scores_path) for experiment in experiments]
    pages = Pages([experiment.config.name for experiment in experiments], _notices(experiments))
    with only_writer(folder), atomic_folder(folder, MARKER) as inside:
        rows, measures = [], [Measures() for _ in experiments]
        for seen in Gatherer(experiments, inside).run():
            rows.append(seen.row)
            for total, one in zip(measures, seen.measures, strict=True):
                total.add(one)
        confusions = [confusions_of(rows, number) for number in range(len(experiments))]
        folds = [_by_fold(rows, number, found) for number, found in enumerate(confusions)]
        nyuv2 = is_nyuv2([row["id"] for row in rows])
        context = _score_page(records, rows, confusions, folds, nyuv2)
        charts = _charts(experiments, folds, nyuv2, measures)
        pages.write(inside, "score.html", context, charts, rows, truth=True, networks=1)


def _notices(experiments: Sequence[Experiment]) -> list[str]:
    """What a reader must know."""
    base, notes = experiments[0], []
    for one in experiments:
        name = one.config.name
        if one.notice:
            notes.append(f"{name}: {one.notice}")
        if fold_hash(one.table) != fold_hash(base.table):
            notes.append(f"{name} has other folds: its networks saw other rooms")
        if one.members:
            notes.append(
                f"{name} is a blend: its masks and scores are of weights that were fitted without "
                "the room, the probabilities of the final weights"
            )
    return notes


def confusions_of(rows: Sequence[dict[str, Any]], number: int) -> np.ndarray:
    """The confusion matrix of each image, int64 [n,13,13], from what its row lists."""
    found = np.zeros((len(rows), NUM_CLASSES, NUM_CLASSES), np.int64)
    for place, row in enumerate(rows):
        for truth, guess, pixels in row["scores"][number]["pairs"]:
            found[place, truth, guess] = pixels
    return found


def _charts(
    experiments: Sequence[Experiment],
    folds: Sequence[np.ndarray],
    nyuv2: bool,
    measures: Sequence[Measures],
) -> list[Chart]:
    names = [experiment.config.name for experiment in experiments]
    charts = [class_chart(names, folds, nyuv2)]
    charts += [part_chart(partition, names, measures) for partition in PARTITIONS]
    charts.append(calibration_chart(names, measures))
    for column, title in (
        ("valid_miou", "mIoU of the held-out images"),
        ("train_loss", "Training loss"),
        ("valid_loss", "Loss of the held-out images"),
    ):
        charts.append(curve_chart(experiments, column, title))
    return [chart for chart in charts if chart["data"]]


def _score_page(
    records: Sequence[CrossValidation],
    rows: list[dict[str, Any]],
    confusions: list[np.ndarray],
    folds: list[np.ndarray],
    nyuv2: bool,
) -> dict[str, Any]:
    scenes = [row["scene"] for row in rows]
    return {
        "cards": [
            _card(record, found, scenes, confusions[0])
            for record, found in zip(records, confusions, strict=True)
        ],
        "images": len(rows),
        "rooms": len(set(scenes)),
        "class_rows": _class_rows(confusions, folds, nyuv2),
        "nyuv2": nyuv2,
        "matrices": [_matrix(found.sum(0)) for found in confusions],
        "scene_rows": _scene_rows(rows, confusions),
        "fold_rows": [_fold_row(rows, fold, folds) for fold in range(max(map(len, folds)))],
    }


def _by_fold(rows: Sequence[dict[str, Any]], number: int, found: np.ndarray) -> np.ndarray:
    own = np.array([row["scores"][number]["fold"] for row in rows])
    return np.stack([found[own == fold].sum(0) for fold in range(own.max() + 1)])


def _card(
    record: CrossValidation, found: np.ndarray, scenes: Sequence[str], base: np.ndarray
) -> dict[str, Any]:
    miou, total = score(found, scenes), summarize(found.sum(0))
    gain = None if found is base else difference_text(difference(found, base, scenes))
    return {
        "name": record.experiment,
        "miou": miou,
        "accuracy": total["pixel_accuracy"],
        "depth": record.depth_mae_m,
        "gain": gain,
    }


def _class_rows(
    confusions: Sequence[np.ndarray], folds: Sequence[np.ndarray], nyuv2: bool
) -> list[dict[str, Any]]:
    totals = [found.sum(0) for found in confusions]
    ious, each = [class_iou(total) for total in totals], [class_iou(found) for found in folds]
    share = totals[0].sum(1) / max(1, totals[0].sum())
    return [
        {
            "name": name,
            "colour": PALETTE[k].tolist(),
            "share": share[k],
            "iou": [iou[k] for iou in ious],
            "worst": [_known(np.nanmin, one[:, k]) for one in each],
            "best": [_known(np.nanmax, one[:, k]) for one in each],
            "reported": EXP060_IOU[k] if nyuv2 else None,
        }
        for k, name in enumerate(CLASS_NAMES)
    ]


def _known(function: Callable[[np.ndarray], Any], values: np.ndarray) -> float | None:
    """A function of those values that are numbers; None without any."""
    return None if np.isnan(values).all() else float(function(values))


def _matrix(total: np.ndarray) -> list[list[float | None]]:
    """Shares of each true class's pixels by predicted class; None for a class without any."""
    sums = total.sum(1, keepdims=True)
    return [
        [None if not all_of[0] else float(value / all_of[0]) for value in row]
        for row, all_of in zip(total, sums, strict=True)
    ]


def _scene_rows(
    rows: Sequence[dict[str, Any]], confusions: Sequence[np.ndarray]
) -> list[dict[str, Any]]:
    """Each room with its scores, the worst of the first experiment first."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row["scene"], []).append(place)
    found: list[dict[str, Any]] = [
        {
            "scene": scene,
            "images": len(inside),
            "scores": [summarize(each[inside].sum(0)) for each in confusions],
        }
        for scene, inside in places.items()
    ]
    known = [row for row in found if row["scores"][0]["miou"] is not None]
    unknown = [row for row in found if row["scores"][0]["miou"] is None]
    return sorted(known, key=lambda row: row["scores"][0]["miou"]) + unknown


def _fold_row(
    rows: Sequence[dict[str, Any]], fold: int, folds: Sequence[np.ndarray]
) -> dict[str, Any]:
    inside = [row for row in rows if row["scores"][0]["fold"] == fold]
    return {
        "fold": fold,
        "images": len(inside),
        "rooms": len({row["scene"] for row in inside}),
        "scores": [summarize(found[fold : fold + 1].sum(0)) for found in folds],
    }
