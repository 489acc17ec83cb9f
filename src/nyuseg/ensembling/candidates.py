"""Which weights a blend could have, and how each of them would score: nothing is fitted blindly.

Candidates are scored by exact confusion matrices on a sample of pixels, each fold of rooms apart,
so that weights can be chosen on some rooms and judged on others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import torch

from nyuseg.data.classes import NUM_CLASSES
from nyuseg.evaluation.metrics import mean_iou
from nyuseg.inference.grid import sharpen
from nyuseg.utils.progress import progress

MOST_CANDIDATES, FINEST = 400, 20
TEMPERATURES = (0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.4, 1.7, 2.0)
BLOCK = 4096  # Pixels whose mixtures are held at once, for every candidate.


@dataclass(frozen=True)
class Mixture:
    """Weights and temperatures, one a member."""

    weights: tuple[float, ...]
    temperatures: tuple[float, ...]


@dataclass(frozen=True)
class Sample:
    """Labelled pixels of one fold's rooms: values float16 [M,13,n], truth uint8 [n], 0..12."""

    values: torch.Tensor
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


def count_pairs(sample: Sample, weights: np.ndarray, temperatures: Sequence[float]) -> np.ndarray:
    """Confusion matrix of each candidate mixture on a sample: int64 [C,13,13].

    weights: float [C,M]; temperatures: one a member.
    """
    rows = torch.from_numpy(weights).float()
    total = torch.zeros(len(rows) * NUM_CLASSES**2, dtype=torch.int64)
    offsets = torch.arange(len(rows))[:, None] * NUM_CLASSES**2
    for first in range(0, sample.values.shape[-1], BLOCK):
        part = slice(first, first + BLOCK)
        values = _heated(sample.values[..., part].float(), temperatures)
        mixed = (rows @ values.flatten(1)).view(len(rows), NUM_CLASSES, -1)
        pairs = sample.truth[part].long() * NUM_CLASSES + mixed.max(1).indices
        total += torch.bincount((pairs + offsets).view(-1), minlength=len(total))
    return total.view(-1, NUM_CLASSES, NUM_CLASSES).numpy()


def _heated(values: torch.Tensor, temperatures: Sequence[float]) -> torch.Tensor:
    """Values [M,13,n] with each member's temperature applied."""
    pairs = zip(values, temperatures, strict=True)
    return torch.stack([sharpen(one[..., None], heat)[..., 0] for one, heat in pairs])


def choose(confusions: np.ndarray) -> int:
    """The candidate of the highest mIoU, the first of equals; confusions int [C,13,13].

    Without any pixel all are equal.
    """
    return int(np.argmax(np.nan_to_num(mean_iou(confusions), nan=-1)))


def surprise(sample: Sample) -> np.ndarray:
    """Summed negative log-likelihood of the truth by temperature and member: float [T,M]."""
    index = sample.truth.long()[None, None].expand(len(sample.values), 1, -1)
    table = []
    for heat in TEMPERATURES:
        row = np.zeros(len(sample.values))
        for first in range(0, sample.values.shape[-1], 16 * BLOCK):
            part = slice(first, first + 16 * BLOCK)
            values = _heated(sample.values[..., part].float(), [heat] * len(sample.values))
            chosen = values.gather(1, index[..., part]).clamp(min=1e-7)
            row -= chosen.log().sum((1, 2)).double().numpy()
        table.append(row)
    return np.array(table)


def fit_temperatures(table: np.ndarray) -> tuple[float, ...]:
    """Each member's temperature of the highest likelihood; table as `surprise` gives it."""
    return tuple(TEMPERATURES[index] for index in table.argmin(0))


def nested(
    samples: list[Sample], temperature: bool
) -> tuple[list[Mixture], Mixture, dict[str, Any]]:
    """For each fold the mixture fitted on the others, the one fitted on all, and its optimism.

    optimism: by how much the score on the sample is higher when each fold's rooms are among those
    that its weights were fitted on.
    """
    count = len(samples[0].values)
    rows = candidates(count)
    tables = np.stack([surprise(sample) for sample in samples]) if temperature else None
    counted: dict[tuple[float, ...], np.ndarray] = {}

    def fit(inside: np.ndarray) -> tuple[Mixture, np.ndarray]:
        """The best mixture on some folds; its confusion matrix on every fold: [K,13,13]."""
        heats = (1.0,) * count if tables is None else fit_temperatures(tables[inside].sum(0))
        if heats not in counted:
            rounds = progress(samples, f"{len(rows)} candidates", len(samples), "fold")
            counts = [count_pairs(sample, rows, heats) for sample in rounds]
            counted[heats] = np.stack(counts, 1)
        best = choose(counted[heats][:, inside].sum(1))
        return Mixture(tuple(rows[best].tolist()), heats), counted[heats][best]

    every = np.arange(len(samples))
    fitted = [fit(every[every != fold]) for fold in every]
    final, confusions = fit(every)
    honest = mean_iou(sum(found[fold] for fold, (_, found) in enumerate(fitted)))
    facts = {"candidates": len(rows), "optimism": float(mean_iou(confusions.sum(0)) - honest)}
    return [mixture for mixture, _ in fitted], final, facts
