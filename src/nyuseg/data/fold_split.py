"""Drawing folds, by scene or at random."""

import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, StratifiedGroupKFold

ATTEMPTS = 20


def split_by_scene(scenes: pd.DataFrame, count: int) -> np.ndarray:
    """Fold of each row, stratified by scene_type, no scene in two folds, no fold empty; int [n].

    scikit-learn's greedy split depends on its random state; of the first twenty states the one
    with the most even folds is taken (the first of them), so the result depends on the rows alone.
    It can leave folds empty, though there are scenes enough: when each of the twenty does, scenes
    are dealt out by size instead. There must be `count` scenes or more.
    """
    kinds = scenes["scene_type"]
    if kinds.value_counts().max() < count:  # Too few of each to spread any over the folds.
        kinds = pd.Series("any", index=scenes.index)
    candidates = []
    for state in range(ATTEMPTS):
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=state)
        folds = np.zeros(len(scenes), int)
        with warnings.catch_warnings():  # Scene types with fewer images than folds are fine here.
            warnings.simplefilter("ignore", UserWarning)
            parts = list(splitter.split(scenes, kinds, scenes["scene"]))
        for fold, (_, held_out) in enumerate(parts):
            folds[held_out] = fold
        candidates.append(folds)
    sizes = [np.bincount(folds, minlength=count) for folds in candidates]
    whole = [number for number in range(ATTEMPTS) if sizes[number].all()]
    if not whole:
        return _deal_out(scenes["scene"], count)
    return candidates[min(whole, key=lambda number: np.ptp(sizes[number]))]


def _deal_out(scenes: pd.Series, count: int) -> np.ndarray:
    """Each scene, the largest first, to the fold that has the fewest images so far; int [n]."""
    frames = np.zeros(count, int)
    fold_of = {}
    counts = scenes.value_counts()
    for scene in sorted(counts.index, key=lambda scene: (-counts[scene], scene)):
        fold_of[scene] = int(frames.argmin())
        frames[fold_of[scene]] += counts[scene]
    return scenes.map(fold_of).to_numpy()


def split_random(n: int, count: int) -> np.ndarray:
    """Fold of each of n images, at random whatever their scenes (leaks); int [n]."""
    folds = np.zeros(n, int)
    for fold, (_, held_out) in enumerate(KFold(count, shuffle=True, random_state=42).split(folds)):
        folds[held_out] = fold
    return folds
