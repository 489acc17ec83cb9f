"""Scoring predictions against labels, after they are made."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from nyuseg.data.classes import NUM_CLASSES, VOID
from nyuseg.data.depth import linear_depth
from nyuseg.data.frames import FrameFolder
from nyuseg.dataloading.dataset import Source, read_frame
from nyuseg.evaluation.means import Means, total_loss
from nyuseg.evaluation.metrics import summarize
from nyuseg.experiment.folder import Experiment
from nyuseg.inference.grid import likeliest
from nyuseg.inference.predictor import Prediction, Predictor
from nyuseg.models.team import ALONE, Team
from nyuseg.utils.errors import UserError

PAIRS = NUM_CLASSES**2
# What may be called with each prediction and its label, uint8 [H,W], when both are there.
Look = Callable[[Prediction, np.ndarray], None]


def validate(
    predictor: Predictor,
    source: Source,
    ids: Sequence[str],
    look: Look | None = None,
    team: Team = ALONE,
) -> dict[str, Any]:
    """Predict training frames and score them at their native size; a team shares them out.

    Returns `confusions` (int64 [n,13,13], by image, in the order of the ids), their sum `confusion`
    ([13,13]), its `miou`, `pixel_accuracy`, `class_iou` and the losses of the report,
    `segmentation`, `depth` and `loss` (their weighted sum), each averaged over the images that have
    a label or a depth; `depth` is None when none has, or without a depth head. All is counted on
    the device, which is asked once, at the end. Raises UserError when every label is void.
    """
    device = predictor.devices[0]
    own = team.share(ids)
    counts = torch.zeros(len(own), PAIRS + 1, dtype=torch.int64, device=device)
    means = Means(2, torch.float64, device)
    nothing = torch.zeros((), device=device), torch.zeros((), dtype=torch.bool, device=device)
    for count, prediction in zip(counts, predictor.predict(source, own), strict=True):
        kinds = ("label",) if prediction.depth is None else ("label", "depth")
        truth = read_frame(source, prediction.id, kinds, predictor.config.data)
        label = torch.from_numpy(truth["label"].astype(np.int64)).to(device, non_blocking=True)
        probabilities = prediction.full_probabilities().to(device)
        add_confusion(count, label, likeliest(probabilities))
        parts = [cross_entropy(probabilities, label), nothing]
        guess = prediction.full_depth()
        if guess is not None:
            parts[1] = depth_error(guess.to(device), truth["depth"])
        means.add(*(torch.stack(kind) for kind in zip(*parts, strict=True)))
        if look:
            look(prediction, truth["label"])
    counts = team.join(counts)
    for totals in (means.sums, means.counts):
        team.sum(totals)
    confusions = counts[:, :PAIRS].cpu().numpy().reshape(-1, NUM_CLASSES, NUM_CLASSES)
    confusion = confusions.sum(0)
    segmentation, depth = means.read()
    if segmentation is None:
        folder = source.root / source.split / "label"
        raise UserError(f"{folder}: void at every pixel of the {len(ids)} labels to score on")
    total = total_loss(segmentation, depth, predictor.config.train.depth_loss)
    losses = {"loss": total, "segmentation": segmentation, "depth": depth}
    return {"confusions": confusions, "confusion": confusion, **summarize(confusion), **losses}


def add_confusion(counts: torch.Tensor, truth: torch.Tensor, prediction: torch.Tensor) -> None:
    """Add metrics.confusion_matrix of one image to counts, int64 [170], on its device.

    truth: int64 [H,W], 0..12 or 255; prediction: int64 [H,W], 0..12. Void pixels are counted in
    the last place, because to leave them out a GPU would have to be waited for.
    """
    pairs = torch.where(truth == VOID, PAIRS, truth * NUM_CLASSES + prediction).view(-1)
    counts.index_add_(0, pairs, torch.ones_like(pairs))


def cross_entropy(
    probabilities: torch.Tensor, truth: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross entropy over the pixels that are not void; [13,H,W] and int64 [H,W] to [].

    And whether there is any such pixel, bool [].
    """
    valid = truth != VOID
    chosen = probabilities.gather(0, truth.where(valid, 0)[None])[0]
    # The floor keeps one impossible pixel from deciding the mean of an image.
    pixels = valid.sum()
    return -(chosen.clamp(min=1e-7).log() * valid).sum() / pixels.clamp(min=1), pixels > 0


def depth_error(guess: torch.Tensor, millimetres: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean absolute error over the pixels with a depth, in units of linear_depth (0..1).

    guess: float [H,W] in those units; millimetres: uint16 [H,W], 0 = missing. And whether there is
    any such pixel, bool [].
    """
    truth, valid = (
        torch.from_numpy(values).to(guess.device, non_blocking=True)
        for values in (linear_depth(millimetres), millimetres > 0)
    )
    pixels = valid.sum()
    return ((guess - truth).abs() * valid).sum() / pixels.clamp(min=1), pixels > 0


def require_labels(experiment: Experiment, folds: Sequence[int]) -> None:
    """Raise UserError unless these folds have labels to learn from and to be scored on.

    It reads labels until each fold of the table has shown one pixel that is not void.
    """
    if not folds:
        return
    frames = FrameFolder(experiment.input, "train")

    def has_labels(fold: int) -> bool:
        ids = experiment.ids(fold, held_out=True)
        return any((frames.read(one, ("label",))["label"] != VOID).any() for one in ids)

    known = {fold for fold in range(experiment.config.folds.count) if has_labels(fold)}
    folder = frames.root / frames.split / "label"
    if not known:
        raise UserError(f"{folder}: {VOID} (void) at every pixel of every label; put labels there")
    for fold in folds:
        sides = ["held-out"] * (fold not in known) + ["training"] * (not known - {fold})
        if sides:
            raise UserError(
                f"{folder}: {VOID} (void) at every pixel of fold {fold}'s {sides[0]} images; "
                "label some of them, or train another split, such as --set folds.count="
                f"{max(2, len(known))}"
            )
