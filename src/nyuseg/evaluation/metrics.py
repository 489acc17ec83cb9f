"""Scores from one confusion matrix."""

from typing import Any

import numpy as np

from nyuseg.data.classes import NUM_CLASSES, VOID


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Count pixels by true class (row) and predicted class (column), int64 [13,13].

    truth: uint8 [H,W], 0..12 or 255 (void: not counted). prediction: uint8 [H,W], 0..12.
    Raises ValueError when shapes differ or a value is neither a class nor (in truth) void.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth is {truth.shape}, prediction {prediction.shape}")
    valid = truth != VOID
    rows, columns = truth[valid].astype(np.int64), prediction[valid]
    if max(rows.max(initial=0), columns.max(initial=0)) >= NUM_CLASSES:
        raise ValueError(f"class ids must be below {NUM_CLASSES}")
    pairs = np.bincount(rows * NUM_CLASSES + columns, minlength=NUM_CLASSES**2)
    return pairs.reshape(NUM_CLASSES, NUM_CLASSES)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """IoU of each class, [...,13,13] to float [...,13]; NaN for a class that does not occur."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    union = confusion.sum(-1) + confusion.sum(-2) - hits
    return np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)


def mean_iou(confusion: np.ndarray) -> np.ndarray:
    """Mean IoU over the classes in truth or prediction, [...,13,13] to [...]; NaN without any."""
    iou = class_iou(confusion)
    present = ~np.isnan(iou)
    total, count = np.where(present, iou, 0).sum(-1), present.sum(-1)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def summarize(confusion: np.ndarray) -> dict[str, Any]:
    """mIoU (over the classes that occur in truth or prediction), pixel accuracy, IoU per class.

    A score that no pixel defines is None, so that the result is valid JSON.
    """
    iou, mean, total = class_iou(confusion), mean_iou(confusion), confusion.sum()
    return {
        "miou": None if np.isnan(mean) else float(mean),
        "pixel_accuracy": float(np.trace(confusion) / total) if total else None,
        "class_iou": [None if np.isnan(value) else float(value) for value in iou],
    }
