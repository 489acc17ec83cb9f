"""How sure a score is: resampling whole rooms, because frames of one room are not independent."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nyuseg.evaluation.metrics import class_iou, mean_iou
from nyuseg.experiment.records import Estimate

RESAMPLES = 10_000
LEVEL = 0.95


def score(confusions: np.ndarray, scenes: Sequence[str]) -> Estimate:
    """The pooled mIoU of images with an interval over scenes; see difference."""
    return _estimate(mean_iou(confusions.sum(0)), mean_iou(resample(confusions, scenes)))


def difference(a: np.ndarray, b: np.ndarray, scenes: Sequence[str]) -> Estimate:
    """By how much the pooled mIoU of A exceeds that of B, over the same draws of scenes.

    a, b: int [n,13,13], a confusion matrix for each image, in one order; scenes: n names. The
    method is the percentile bootstrap over clusters, paired: Efron & Tibshirani, An Introduction
    to the Bootstrap, 1993, chapter 13. Raises ValueError for arrays of different lengths.
    """
    if not len(a) == len(b) == len(scenes):
        raise ValueError(f"{len(a)} and {len(b)} images, {len(scenes)} scenes")
    drawn = mean_iou(resample(a, scenes)) - mean_iou(resample(b, scenes))
    return _estimate(mean_iou(a.sum(0)) - mean_iou(b.sum(0)), drawn)


def class_scores(confusions: np.ndarray, scenes: Sequence[str]) -> list[Estimate]:
    """As score, of each class's IoU: 13 estimates, NaN where a class does not occur."""
    drawn = class_iou(resample(confusions, scenes))
    values = class_iou(confusions.sum(0))
    return [_estimate(value, drawn[:, k]) for k, value in enumerate(values)]


def class_differences(a: np.ndarray, b: np.ndarray, scenes: Sequence[str]) -> list[Estimate]:
    """As difference, of each class's IoU: 13 estimates, NaN where a class does not occur."""
    drawn = class_iou(resample(a, scenes)) - class_iou(resample(b, scenes))
    values = class_iou(a.sum(0)) - class_iou(b.sum(0))
    return [_estimate(value, drawn[:, k]) for k, value in enumerate(values)]


def resample(
    confusions: np.ndarray, scenes: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Pooled confusion matrices of as many scenes, drawn with replacement: [resamples,13,13].

    confusions: int [n,13,13]; scenes: n names. The same scenes and seed give the same draws, which
    makes two calls a paired comparison. All NaN for a single scene, which says nothing of others.
    """
    codes, names = pd.factorize(np.asarray(scenes))
    if len(names) < 2:
        return np.full((resamples, *confusions.shape[1:]), np.nan)
    sums = np.zeros((len(names), *confusions.shape[1:]))
    np.add.at(sums, codes, confusions)
    draws = draw(len(names), resamples, seed)
    # In floats, for the fast matrix product: exact up to 2**53 pixels.
    return (draws @ sums.reshape(len(names), -1)).reshape(resamples, *confusions.shape[1:])


def draw(count: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of `count` scenes occurs in each resample; float64 [resamples,count]."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, np.full(count, 1 / count), resamples).astype(float)


def _estimate(value: np.ndarray, drawn: np.ndarray) -> Estimate:
    drawn = drawn[~np.isnan(drawn)]  # A resample may hold nothing but void.
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail]) if drawn.size else (np.nan, np.nan)
    above = np.mean((drawn > 0) + 0.5 * (drawn == 0)) if drawn.size else np.nan
    return Estimate(value=float(value), low=float(low), high=float(high), p_above=float(above))
