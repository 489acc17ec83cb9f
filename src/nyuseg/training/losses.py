"""The report's losses, cross entropy plus a tenth of the L1 of the depth, and what may be added."""

from functools import cache

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import (
    MULTICLASS_MODE,
    DiceLoss,
    JaccardLoss,
    LovaszLoss,
)

from nyuseg.config.sections import Train
from nyuseg.data.classes import VOID

# Lovasz sorts all pixels for each class. Those of every fourth row and column, the stride of the
# logits, tell as much about the shares of regions, and cost a sixteenth.
SORT_EVERY = 4


def valid_pixels(batch: dict[str, torch.Tensor], options: Train) -> dict[str, torch.Tensor]:
    """How many pixels of a batch count in each loss: `segmentation`, where each counts by its
    pixel_weights, and, of a batch with depth, `depth`."""
    valid = {"segmentation": pixel_weights(batch["label"], options)}
    if "depth_valid" in batch:
        valid["depth"] = batch["depth_valid"]
    return {name: mask.sum() for name, mask in valid.items()}


def multitask_loss(
    output: dict[str, torch.Tensor],
    batch: dict[str, torch.Tensor],
    options: Train,
    counts: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """Losses of a batch, as scalars: `segmentation`, with all that `options` adds to its cross
    entropy, an auxiliary head's included, `depth` (0 without a depth head), and `total`.

    output: the model's, on the grid. batch: label int64 [N,H,W] with 255 void and, for a depth
    head, depth [N,1,H,W] linear in 0..1 and depth_valid bool [N,1,H,W]. The grid is upsampled to
    the input here, in fp32. Void pixels and pixels without a depth count in neither the sum nor the
    mean; a batch without any valid pixel gives 0, not NaN. counts: valid_pixels of the whole batch,
    when this is a part of one: the parts' losses then add up to the batch's; those over regions,
    Lovasz, Dice and IoU, are then the mean over the parts.
    """
    label = batch["label"]
    counts = counts or valid_pixels(batch, options)
    logits = _upsample(output["logits"], label.shape[-2:])
    segmentation = segmentation_loss(logits, label, counts["segmentation"], options)
    if "auxiliary" in output:
        logits = _upsample(output["auxiliary"], label.shape[-2:])
        auxiliary = auxiliary_loss(logits, label, counts["segmentation"], options)
        segmentation = segmentation + options.aux_loss * auxiliary
    depth = segmentation.new_zeros(())
    if "depth" in output:
        prediction = _upsample(output["depth"], label.shape[-2:])
        error = (prediction - batch["depth"]).abs() * batch["depth_valid"]
        depth = error.sum() / counts["depth"].clamp(min=1)
    total = segmentation + options.depth_loss * depth
    return {"total": total, "segmentation": segmentation, "depth": depth}


def segmentation_loss(
    logits: torch.Tensor, label: torch.Tensor, count: torch.Tensor, options: Train
) -> torch.Tensor:
    """Cross entropy, summed over the pixels that are not void and divided by their count, and the
    losses over regions that `options` adds, weighted by the share of those pixels that are here.

    logits: [N,13,H,W]; label: [N,H,W]; count: the sum of all pixel_weights. 0 without a pixel.
    """
    weights = pixel_weights(label, options)
    total = _cross_entropy(logits, label, weights, options.label_smoothing)
    for weight, region_loss, every in (
        (options.lovasz, LovaszLoss, SORT_EVERY),
        (options.dice, DiceLoss, 1),
        (options.soft_iou, JaccardLoss, 1),
    ):
        if weight:
            part = logits[..., ::every, ::every], label[..., ::every, ::every]
            loss = region_loss(MULTICLASS_MODE, ignore_index=VOID)(*part)
            # The sum: without a pixel Lovasz is no number but an empty tensor.
            total = total + weight * loss.sum() * weights.sum()
    return total / count.where(count > 0, 1)


def auxiliary_loss(
    logits: torch.Tensor, label: torch.Tensor, count: torch.Tensor, options: Train
) -> torch.Tensor:
    """The cross entropy of segmentation_loss, without losses over regions."""
    weights = pixel_weights(label, options)
    total = _cross_entropy(logits, label, weights, options.label_smoothing)
    return total / count.where(count > 0, 1)


def pixel_weights(label: torch.Tensor, options: Train) -> torch.Tensor:
    """How much each pixel counts in the cross entropy: bool [N,H,W], false where it is void, or
    float32 if `options` weigh classes or boundaries.

    A boundary pixel has another class, void apart, among its eight neighbours.
    """
    valid = label != VOID
    if options.class_weights is None and options.boundary_weight == 1:
        return valid
    weights = valid.float()
    if options.class_weights is not None:
        weights = weights * _table(options.class_weights, label.device)[label.where(valid, 0)]
    if options.boundary_weight != 1:
        weights = weights.where(~_at_boundary(label, valid), weights * options.boundary_weight)
    return weights


@cache  # A copy to a GPU in each step would be waited for.
def _table(class_weights: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(class_weights, device=device)


def _at_boundary(label: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    def largest(values: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(values[:, None].float(), 3, 1, 1)[:, 0]

    # Void takes part in neither: below every class in one, above none in the other.
    highest, lowest = largest(label.where(valid, -1)), -largest((-label).where(valid, -VOID))
    return valid & (highest != lowest)


def _cross_entropy(
    logits: torch.Tensor, label: torch.Tensor, weights: torch.Tensor, smoothing: float
) -> torch.Tensor:
    reduction = "sum" if weights.dtype == torch.bool else "none"
    loss = F.cross_entropy(
        logits, label, ignore_index=VOID, reduction=reduction, label_smoothing=smoothing
    )
    return loss if reduction == "sum" else (loss * weights).sum()


def _upsample(grid: torch.Tensor, size: torch.Size) -> torch.Tensor:
    return F.interpolate(grid.float(), size, mode="bilinear", align_corners=False)


class LossWatch:
    """Remembers, on the device, the first step whose loss is not finite, and the steps' ids."""

    def __init__(self, device: torch.device) -> None:
        self.first_bad = torch.full((), -1, device=device)
        self.ids: list[list[str]] = []

    def see(self, loss: torch.Tensor, ids: list[str]) -> None:
        """Take note of one step; waits for nothing."""
        step = torch.full_like(self.first_bad, len(self.ids))
        bad = (self.first_bad < 0) & ~torch.isfinite(loss)
        self.first_bad = torch.where(bad, step, self.first_bad)
        self.ids.append(ids)

    def bad_step(self, look: bool) -> int | None:
        """The first bad step so far, counted from 0; a GPU is only asked when `look` is true."""
        if not look and self.first_bad.device.type != "cpu":
            return None
        step = int(self.first_bad)
        return step if step >= 0 else None
