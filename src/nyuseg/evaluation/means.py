"""Means over what has a value; what has none leaves numerator and denominator."""

import torch


class Means:
    """Means of `count` numbers, each over the frames or batches that have it.

    Kept on the device, which is asked once, at the end.
    """

    def __init__(self, count: int, dtype: torch.dtype, device: torch.device) -> None:
        self.sums = torch.zeros(count, dtype=dtype, device=device)
        self.counts = torch.zeros_like(self.sums)

    def add(self, values: torch.Tensor, known: torch.Tensor) -> None:
        """Take the numbers of one frame or batch; known: bool [count], which of them it has."""
        self.sums += values.where(known, 0)
        self.counts += known

    def read(self) -> list[float | None]:
        """The means; None where no frame had the number."""
        means, counts = (self.sums / self.counts).tolist(), self.counts.tolist()
        return [mean if count else None for mean, count in zip(means, counts, strict=True)]


def total_loss(
    segmentation: float | None, depth: float | None, depth_weight: float
) -> float | None:
    """The weighted sum of two means: without a depth the first alone, without the first None."""
    return None if segmentation is None else segmentation + depth_weight * (depth or 0.0)
