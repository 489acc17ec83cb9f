"""Encodings of depth. Millimetres come in, a missing pixel (0 mm) never looks like a near one."""

from collections.abc import Sequence
from functools import cache

import numpy as np

# Metres; the range in which the depths of NYUv2 lie, as in the Exp060 report.
DEPTH_MIN = 0.71
DEPTH_MAX = 10.0


def to_millimetres(
    stored: np.ndarray, unit: str | float = "mm", missing: Sequence[int] = ()
) -> np.ndarray:
    """What the numbers of a depth file mean: uint16 [H,W] millimetres, 0 = missing.

    stored: uint16 [H,W]; unit, missing: as data.depth_unit and data.depth_missing. A depth beyond
    65.535 m becomes 65.535 m, one below half a millimetre 1 mm: neither wraps around nor turns into
    a missing one, and the codes below clip both.
    """
    if unit == "mm" and not missing:
        return stored
    return _table(unit, tuple(missing))[stored]


@cache
def _table(unit: str | float, missing: tuple[int, ...]) -> np.ndarray:
    """to_millimetres of every number, uint16 [65536]."""
    values = np.arange(2**16, dtype=np.int64)
    if unit == "sunrgbd":  # Song, Lichtenberg & Xiao, CVPR 2015; read3dPoints.m of its toolbox.
        found = ((values >> 3) | (values << 13)) & 0xFFFF
    else:
        scale = 1.0 if unit == "mm" else float(unit)
        found = np.clip(np.rint(values * scale), 1, 2**16 - 1)
    found[[0, *missing]] = 0
    return found.astype(np.uint16)


def changed_depth(depth: np.ndarray, millimetres: np.ndarray) -> np.ndarray:
    """A depth, uint16 [H,W], with other numbers, float [H,W]: what is missing stays so, and nothing
    else becomes so."""
    found = np.clip(np.rint(millimetres), 1, 2**16 - 1)
    return np.where(depth > 0, found, 0).astype(np.uint16)


def _clipped_metres(millimetres: np.ndarray) -> np.ndarray:
    return np.clip(millimetres.astype(np.float32) / 1000, DEPTH_MIN, DEPTH_MAX)


def linear_depth(millimetres: np.ndarray) -> np.ndarray:
    """(d - 0.71) / (10 - 0.71) for d in metres, clipped to [0.71, 10]; float32 [H,W] in 0..1.

    millimetres: uint16 [H,W]; missing pixels (0) give 0.
    """
    metres = _clipped_metres(millimetres)
    return _masked((metres - DEPTH_MIN) / (DEPTH_MAX - DEPTH_MIN), millimetres)


def inverse_depth(millimetres: np.ndarray) -> np.ndarray:
    """(1/d - 1/10) / (1/0.71 - 1/10), as linear_depth: 1 is nearest, 0 is farthest or missing."""
    metres = _clipped_metres(millimetres)
    return _masked((1 / metres - 1 / DEPTH_MAX) / (1 / DEPTH_MIN - 1 / DEPTH_MAX), millimetres)


def log_depth(millimetres: np.ndarray) -> np.ndarray:
    """ln(d / 0.71) / ln(10 / 0.71), as linear_depth."""
    metres = _clipped_metres(millimetres)
    code = np.log(metres / DEPTH_MIN) / np.log(DEPTH_MAX / DEPTH_MIN)
    return _masked(np.clip(code, 0, 1), millimetres)  # Rounding alone can pass 1.


def _masked(encoded: np.ndarray, millimetres: np.ndarray) -> np.ndarray:
    return np.where(millimetres > 0, encoded, 0).astype(np.float32)
