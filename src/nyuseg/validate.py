"""Scoring predictions against labels, after they are made."""

from typing import Any

import numpy as np
import torch

from nyuseg.classes import NUM_CLASSES, VOID
from nyuseg.dataset import PredictionSet
from nyuseg.depth import linear_depth
from nyuseg.fitting import from_grid, likeliest
from nyuseg.metrics import summarize
from nyuseg.predictor import Predictor

PAIRS = NUM_CLASSES**2


def validate(predictor: Predictor, frames: PredictionSet) -> dict[str, Any]:
    """Predict a set of training frames and score them at their native size.

    Returns `confusions` (int64 [n,13,13], by image, in the order of the set), their sum `confusion`
    ([13,13]), its `miou`, `pixel_accuracy`, `class_iou` and the losses of
    the report, `segmentation`, `depth` and `loss` (their weighted sum), averaged over images. All
    is counted on the device, which is asked once, at the end.
    """
    device, size = predictor.devices[0], predictor.config.data.size
    kinds = ("label", "depth") if predictor.config.model.depth_head else ("label",)
    counts = torch.zeros(len(frames), PAIRS + 1, dtype=torch.int64, device=device)
    losses = torch.zeros(2, dtype=torch.float64, device=device)
    for count, prediction in zip(counts, predictor.predict(frames), strict=True):
        truth = frames.source.read(prediction.id, kinds)
        label = torch.from_numpy(truth["label"].astype(np.int64)).to(device, non_blocking=True)
        probabilities = from_grid(prediction.probabilities.to(device), prediction.size, size)
        count_pairs(count, label, likeliest(probabilities))
        losses[0] += cross_entropy(probabilities, label)
        if prediction.depth is not None:
            guess = from_grid(prediction.depth.to(device), prediction.size, size)[0]
            losses[1] += depth_error(guess, truth["depth"])
    confusions = counts[:, :PAIRS].cpu().numpy().reshape(-1, NUM_CLASSES, NUM_CLASSES)
    confusion = confusions.sum(0)
    segmentation, depth = (losses / len(frames)).tolist()
    total = segmentation + predictor.config.train.depth_loss * depth
    parts = {"loss": total, "segmentation": segmentation, "depth": depth}
    return {"confusions": confusions, "confusion": confusion, **summarize(confusion), **parts}


def count_pairs(counts: torch.Tensor, truth: torch.Tensor, prediction: torch.Tensor) -> None:
    """Add metrics.confusion_matrix of one image to counts, int64 [170], on its device.

    truth: int64 [H,W], 0..12 or 255; prediction: int64 [H,W], 0..12. Void pixels are counted in
    the last place, because to leave them out a GPU would have to be waited for.
    """
    pairs = torch.where(truth == VOID, PAIRS, truth * NUM_CLASSES + prediction).view(-1)
    counts.index_add_(0, pairs, torch.ones_like(pairs))


def cross_entropy(probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over the pixels that are not void; [13,H,W] and int64 [H,W] to [].

    0 without a pixel.
    """
    valid = truth != VOID
    chosen = probabilities.gather(0, truth.where(valid, 0)[None])[0]
    # The floor keeps one impossible pixel from deciding the mean of an image.
    return -(chosen.clamp(min=1e-7).log() * valid).sum() / valid.sum().clamp(min=1)


def depth_error(guess: torch.Tensor, millimetres: np.ndarray) -> torch.Tensor:
    """Mean absolute error over the pixels with a depth, in units of linear_depth (0..1).

    guess: float [H,W] in those units; millimetres: uint16 [H,W], 0 = missing. 0 without a pixel.
    """
    truth, valid = (
        torch.from_numpy(values).to(guess.device, non_blocking=True)
        for values in (linear_depth(millimetres), millimetres > 0)
    )
    return ((guess - truth).abs() * valid).sum() / valid.sum().clamp(min=1)
