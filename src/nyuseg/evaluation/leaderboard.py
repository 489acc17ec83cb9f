"""Scoring submissions against a folder of labels."""

from pathlib import Path
from typing import Any

import numpy as np

from nyuseg.config.prediction import Submission
from nyuseg.data.classes import CLASS_NAMES, NUM_CLASSES
from nyuseg.data.fold_names import is_full
from nyuseg.data.folds import shorten_notice
from nyuseg.data.frames import read_label
from nyuseg.data.listing import list_files, refuse
from nyuseg.evaluation.history import number
from nyuseg.evaluation.metrics import confusion_matrix, summarize
from nyuseg.submission.formats import FILES, read_masks
from nyuseg.submission.manifest import MANIFEST, Manifest
from nyuseg.utils.errors import UserError


def score_submission(path: Path, labels: Path) -> dict[str, Any]:
    """Score a submission folder, or one of its files, on the PNG labels of a folder.

    Returns the scores of metrics.summarize plus `name` and the `manifest` beside the file, None
    when there is none. Raises UserError when the images are not the labels' images, or the manifest
    is another program's.
    """
    folder = path if path.is_dir() else path.parent
    file = _first_file(path) if path.is_dir() else path
    beside = folder / MANIFEST
    try:
        manifest = Manifest.read(beside) if beside.exists() else None
    except UserError as error:
        raise UserError(f"{error}; move it away to score the file without it") from None
    options = manifest.encoding if manifest else Submission()
    truths, faults = list_files(labels)
    refuse(faults)
    if not truths:
        raise UserError(f"{labels}: no PNG labels there")
    sizes = {image_id: read_label(label).shape for image_id, label in truths.items()}
    confusion = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    for image_id, mask in read_masks(file, sizes, options):
        try:
            confusion += confusion_matrix(read_label(truths[image_id]), mask)
        except ValueError as error:
            raise UserError(f"{file}: image {image_id}: {error}") from None
    return {"name": path.name, "manifest": manifest, **summarize(confusion)}


def _first_file(folder: Path) -> Path:
    for name in FILES.values():
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder}: none of {', '.join(FILES.values())} is there")


def score_table(scores: list[dict[str, Any]]) -> str:
    """One row a submission, with its out-of-fold score beside; classes for a single one.

    Single folds come first, with their mean; of several experiments only the means.
    """
    single = [one for one in scores if one["manifest"] and _is_one_fold(one["manifest"])]
    if len(single) > 1:
        rest = [score for score in scores if score not in single]
        scores = [*_with_means(single), *rest]
    width = max(len("submission"), *(len(score["name"]) for score in scores)) + 2
    lines = [f"{'submission':{width}}{'mIoU':>8}{'pixel acc':>11}{'OOF mIoU':>10}"]
    for score in scores:
        manifest: Manifest | None = score["manifest"]
        out_of_fold = manifest.cv.miou if manifest and manifest.cv else None
        notice = shorten_notice(manifest.notice if manifest else None)
        lines.append(
            f"{score['name']:{width}}{number(score['miou']):>8}"
            f"{number(score['pixel_accuracy']):>11}{number(out_of_fold):>10}  {notice}".rstrip()
        )
    if len(scores) == 1:
        lines.append("")
        for name, iou in zip(CLASS_NAMES, scores[0]["class_iou"], strict=True):
            lines.append(f"{name:{width}}{number(iou):>8}")
    return "\n".join(lines)


def _is_one_fold(manifest: Manifest) -> bool:
    return len(manifest.folds) == 1 and not any(map(is_full, manifest.folds))


def _with_means(single: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for score in single:
        groups.setdefault(score["manifest"].experiment, []).append(score)
    if len(groups) == 1:
        return [*single, _mean(single, "mean single fold")]
    return [_mean(group, f"{name}, mean single fold") for name, group in groups.items()]


def _mean(single: list[dict[str, Any]], name: str) -> dict[str, Any]:
    means: dict[str, float | None] = {}
    for key in ("miou", "pixel_accuracy"):
        known = [score[key] for score in single if score[key] is not None]
        means[key] = float(np.mean(known)) if known else None
    return {"name": name, "manifest": single[0]["manifest"], **means}
