"""Does the depth look like that of rooms? What its numbers say, and which setting mends them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from nyuseg.config.sections import Data
from nyuseg.data.depth import DEPTH_MAX, DEPTH_MIN, to_millimetres
from nyuseg.data.frames import WITHOUT_DEPTH, frame_path, list_ids, read_depth, stored_kinds
from nyuseg.utils.progress import progress

SAMPLE = 32  # Frames that tell enough before training or predicting.
MOST, FREQUENT = 0.5, 0.01  # Of the pixels with a depth.
# Metres x 10000 and x 5000, millimetres, centimetres, metres.
STEPS = (0.1, 0.2, 1.0, 10.0, 1000.0)
LARGEST = 2**16 - 1  # Where it is frequent it stands for missing, whatever it would mean.
# Where the median of the depth of rooms lies, in metres.
LIKELY = (1.2, 6.0)
_UNITS = "the millimetres that a step of its numbers stands for"
# Sensors of rooms see about this far: the middle of the range, in ratios.
USUAL = (DEPTH_MIN * DEPTH_MAX) ** 0.5


def count_values(root: Path, split: str, ids: Iterable[str]) -> np.ndarray:
    """How often each number is stored in the depth of some frames: int64 [65536].

    Raises UserError, naming the file, for one that cannot be read.
    """
    counts = np.zeros(2**16, np.int64)
    for image_id in ids:
        pixels = read_depth(frame_path(root, split, "depth", image_id))
        counts += np.bincount(pixels.ravel(), minlength=2**16)
    return counts


def sample(ids: Sequence[str], count: int = SAMPLE) -> list[str]:
    """Some of the ids, evenly spread; all when there are no more than `count`."""
    places = np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(int)
    return [ids[place] for place in places]


def depth_lines(counts: np.ndarray, data: Data, what: str, trained: bool = False) -> list[str]:
    """What the depth looks like in one line, and a warning in each more; counts: count_values.

    trained: the settings are fixed by a training, so that only other files would do.
    """
    median, outside = _spread(counts, data)
    missing = 1 - _with_depth(counts, data).sum() / max(1, counts.sum())
    seen = "no pixel has any" if median is None else f"median {median:.2f} m, {outside:.1%} outside"
    seen += "" if median is None else f" {DEPTH_MIN} to {DEPTH_MAX:g} m, {missing:.1%} missing"
    warnings = _warnings(counts, data)
    if trained and warnings:
        unit = data.depth_unit if isinstance(data.depth_unit, str) else f"{data.depth_unit:g} mm"
        warnings = [
            f"!! these files hold other depth than the training's (data.depth_unit {unit}): "
            f"{seen}; convert them to it !!"
        ]
    return [f"depth: {seen} ({what})", *warnings]


def folder_lines(root: Path, data: Data) -> list[str]:
    """depth_lines of every frame of a data folder, and which of its splits has no depth."""
    lines = []
    for split in ("train", "test"):
        if not (root / split).is_dir():
            continue
        if "depth" not in stored_kinds(root, split):
            lines.append(f"no depth in {root / split}: {WITHOUT_DEPTH}")
            continue
        ids = list_ids(root, split)
        counts = count_values(root, split, progress(ids, f"{split} depth", len(ids)))
        lines += depth_lines(counts, data, f"{split}, {len(ids)} frames")
    return lines


def sample_lines(
    root: Path, split: str, ids: Sequence[str], data: Data, trained: bool = False
) -> list[str]:
    """depth_lines of a sample of frames."""
    some = sample(ids)
    what = f"{split}, {len(some)} of {len(ids)} frames"
    return depth_lines(count_values(root, split, some), data, what, trained)


def _with_depth(counts: np.ndarray, data: Data) -> np.ndarray:
    """The counts of the numbers that are a depth and do not stand for a missing one."""
    return np.where(_metres(data) > 0, counts, 0)


def _metres(data: Data) -> np.ndarray:
    """What each stored number means, in metres, 0 = missing: float64 [65536]."""
    raw = np.arange(2**16, dtype=np.uint16)
    return to_millimetres(raw, data.depth_unit, data.depth_missing) / 1000


def _spread(counts: np.ndarray, data: Data) -> tuple[float | None, float]:
    """Median in metres and the share outside DEPTH_MIN to DEPTH_MAX; None and 0 without depth."""
    metres, known = _metres(data), _with_depth(counts, data)
    total = known.sum()
    if not total:
        return None, 0.0
    order = np.argsort(metres, kind="stable")
    median = metres[order[np.searchsorted(known[order].cumsum(), (total + 1) // 2)]]
    inside = (metres >= DEPTH_MIN) & (metres <= DEPTH_MAX)
    return float(median), float(1 - known[inside].sum() / total)


def _warnings(counts: np.ndarray, data: Data) -> list[str]:
    extremes = _frequent_extremes(counts, data)
    missing = tuple(sorted({*data.depth_missing, *extremes}))
    mended = data.model_copy(update={"depth_missing": missing})
    median, outside = _spread(counts, mended)
    if median is None:
        return [f"!! no depth at any pixel; {WITHOUT_DEPTH} !!"]
    listed = ",".join(map(str, missing))
    also = f" --set 'data.depth_missing=[{listed}]'" if extremes else ""
    if outside > MOST:
        unit = _likely_unit(counts, mended)
        advice = f"set data.depth_unit, {_UNITS}, or convert the files"
        if unit is not None:
            name = "SUN RGB-D" if unit == "sunrgbd" else f"steps of {unit:g} mm"
            value = unit if isinstance(unit, str) else "mm" if unit == 1 else f"{unit:g}"
            advice = f"looks like {name}: --set data.depth_unit={value}{also}"
        return [
            f"!! depth in another unit? {outside:.1%} of it lies outside {DEPTH_MIN} to "
            f"{DEPTH_MAX:g} m, its median is {median:.4g} m; {advice} !!"
        ]
    # Extremes are judged in the unit that is right: only there is a far one an odd one.
    if extremes:
        known = _with_depth(counts, data)
        share = known[list(extremes)].sum() / known.sum()
        return [
            f"!! {share:.1%} of the depth is the extreme value {' or '.join(map(str, extremes))}, "
            f"which may stand for missing:{also} !!"
        ]
    return []


def _frequent_extremes(counts: np.ndarray, data: Data) -> list[int]:
    """Lowest and highest stored number, where it is frequent and no depth of a room.

    A sensor's own farthest depth is frequent, too; only the largest number of all is never one.
    """
    known, metres = _with_depth(counts, data), _metres(data)
    found = np.flatnonzero(known)
    ends = sorted({int(found[0]), int(found[-1])}) if found.size > 2 else []
    odd = [e for e in ends if e == LARGEST or not DEPTH_MIN <= metres[e] <= DEPTH_MAX]
    return [end for end in odd if known[end] > FREQUENT * known.sum()]


def _likely_unit(counts: np.ndarray, data: Data) -> str | float | None:
    """The unit that brings most of the depth into the range and its median closest to USUAL."""
    known = np.flatnonzero(_with_depth(counts, data))
    # Rotated by three bits, a depth below 16.4 m ends in 000 or 001.
    rotated = counts[known[known % 8 < 2]].sum() > 0.99 * counts[known].sum()
    ranked = []
    # Whole centimetres or metres can end so, too.
    for unit in ("sunrgbd", *STEPS) if rotated else STEPS:
        median, outside = _spread(counts, data.model_copy(update={"depth_unit": unit}))
        if median is not None and outside < MOST and LIKELY[0] <= median <= LIKELY[1]:
            ranked.append((unit != "sunrgbd", abs(np.log(median / USUAL)), unit))
    return min(ranked)[2] if ranked else None
