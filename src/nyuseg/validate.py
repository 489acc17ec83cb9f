"""Scoring predictions against labels, after they are made."""

from typing import Any

import numpy as np
import torch

from nyuseg.classes import NUM_CLASSES, VOID
from nyuseg.dataset import PredictionSet
from nyuseg.depth import linear_depth
from nyuseg.fitting import from_grid, to_mask
from nyuseg.frames import frame_path, read_depth, read_label
from nyuseg.metrics import confusion_matrix, summarize
from nyuseg.predictor import Prediction, Predictor


def validate(predictor: Predictor, frames: PredictionSet) -> dict[str, Any]:
    """Predict a set of training frames and score them at their native size.

    Returns `confusion` (int64 [13,13]), `miou`, `pixel_accuracy`, `class_iou` and the losses of
    the report, `segmentation`, `depth` and `loss` (their weighted sum), averaged over images.
    """
    confusion = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    losses = []
    config = predictor.config
    for prediction in predictor.predict(frames):
        label = read_label(frame_path(frames.root, frames.split, "label", prediction.id))
        mask = to_mask(prediction.probabilities, prediction.size, config.data.size)
        confusion += confusion_matrix(label, mask)
        losses.append(
            [
                _cross_entropy(prediction, label, config.data.size),
                _depth_error(prediction, frames, config.data.size),
            ]
        )
    segmentation, depth = np.mean(losses, axis=0).tolist()
    total = segmentation + config.train.depth_loss * depth
    parts = {"loss": total, "segmentation": segmentation, "depth": depth}
    return {"confusion": confusion, **summarize(confusion), **parts}


def _cross_entropy(prediction: Prediction, label: np.ndarray, size: tuple[int, int]) -> float:
    probabilities = from_grid(prediction.probabilities, prediction.size, size)
    truth = torch.from_numpy(label.astype(np.int64)).to(probabilities.device)
    valid = truth != VOID
    chosen = probabilities.gather(0, truth.where(valid, 0)[None])[0]
    # The floor keeps one impossible pixel from deciding the mean of an image.
    loss = -(chosen.clamp(min=1e-7).log() * valid).sum() / valid.sum().clamp(min=1)
    return float(loss)


def _depth_error(prediction: Prediction, frames: PredictionSet, size: tuple[int, int]) -> float:
    if prediction.depth is None:
        return 0.0
    path = frame_path(frames.root, frames.split, "depth", prediction.id)
    guess = from_grid(prediction.depth, prediction.size, size)[0].cpu().numpy()
    return depth_error(guess, read_depth(path))


def depth_error(guess: np.ndarray, millimetres: np.ndarray) -> float:
    """Mean absolute error over the pixels with a depth, in units of linear_depth (0..1).

    guess: float [H,W] in those units; millimetres: uint16 [H,W], 0 = missing. 0 without a pixel.
    """
    error = np.abs(guess - linear_depth(millimetres))[millimetres > 0]
    return float(error.mean()) if error.size else 0.0
