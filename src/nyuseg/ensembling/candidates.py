"""Which weights a blend could have, and how each of them would score: nothing is fitted blindly.

Candidates are scored by exact confusion matrices on a sample of pixels, each fold of rooms apart,
so that weights can be chosen on some rooms and judged on others.
"""

from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import torch

from nyuseg.data.classes import NUM_CLASSES
from nyuseg.evaluation.metrics import mean_iou
from nyuseg.utils.progress import progress

MOST_CANDIDATES, FINEST = 400, 20
BLOCK = 4096  # Pixels whose mixtures are held at once, for every candidate.
Weights = tuple[float, ...]  # One a member.


@dataclass(frozen=True)
class LabelledPixels:
    """Some pixels of one fold's rooms: probabilities float16 [M,13,n], truth uint8 [n], 0..12."""

    probabilities: torch.Tensor
    truth: torch.Tensor


def candidates(count: int) -> np.ndarray:
    """Weights worth a try for so many members: float [C,count], rows of sum 1, equal ones first.

    Then the means of all but one, then a lattice as fine as MOST_CANDIDATES allows.
    """
    fits = [n for n in range(2, FINEST + 1) if comb(n + count - 1, n) <= MOST_CANDIDATES]
    steps = max(fits, default=1)
    equal = np.full(count, 1 / count)
    but_one = [(1 - row) / (count - 1) for row in np.eye(count)] if count > 1 else []
    lattice = []
    for bars in combinations(range(steps + count - 1), count - 1):
        edges = np.array([-1, *bars, steps + count - 1])
        lattice.append((np.diff(edges) - 1) / steps)
    rows = np.array([equal, *but_one, *lattice])
    first = np.unique(rows.round(9), axis=0, return_index=True)[1]
    return rows[np.sort(first)]


def mixture_confusions(pixels: LabelledPixels, weights: np.ndarray) -> np.ndarray:
    """Confusion matrix of each candidate mixture on some pixels: int64 [C,13,13].

    weights: float [C,M].
    """
    rows = torch.from_numpy(weights).float()
    total = torch.zeros(len(rows) * NUM_CLASSES**2, dtype=torch.int64)
    offsets = torch.arange(len(rows))[:, None] * NUM_CLASSES**2
    for first in range(0, pixels.probabilities.shape[-1], BLOCK):
        part = slice(first, first + BLOCK)
        mixed = rows @ pixels.probabilities[..., part].float().flatten(1)
        likeliest = mixed.view(len(rows), NUM_CLASSES, -1).max(1).indices
        pairs = pixels.truth[part].long() * NUM_CLASSES + likeliest
        total += torch.bincount((pairs + offsets).view(-1), minlength=len(total))
    return total.view(-1, NUM_CLASSES, NUM_CLASSES).numpy()


def choose(confusions: np.ndarray) -> int:
    """The candidate of the highest mIoU, the first of equals; confusions int [C,13,13].

    Without any pixel all are equal.
    """
    return int(np.argmax(np.nan_to_num(mean_iou(confusions), nan=-1)))


def nested(folds: list[LabelledPixels]) -> tuple[list[Weights], Weights, dict[str, Any]]:
    """For each fold the weights fitted on the others, those fitted on all, and their optimism.

    optimism: by how much the score on these pixels is higher when each fold's rooms are among
    those that its weights were fitted on.
    """
    rows = candidates(len(folds[0].probabilities))
    rounds = progress(folds, f"{len(rows)} candidates", len(folds), "fold")
    confusions = np.stack([mixture_confusions(pixels, rows) for pixels in rounds], 1)
    every = np.arange(len(folds))
    fitted = [choose(confusions[:, every != fold].sum(1)) for fold in every]
    final = choose(confusions.sum(1))
    honest = mean_iou(sum(confusions[best, fold] for fold, best in enumerate(fitted)))
    optimism = float(mean_iou(confusions[final].sum(0)) - honest)
    per_fold = [tuple(rows[best].tolist()) for best in fitted]
    facts = {"candidates": len(rows), "optimism": optimism}
    return per_fold, tuple(rows[final].tolist()), facts
