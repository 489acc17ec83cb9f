"""Procedural textures, evaluated at points of box faces in metres, so at any image size alike.

Each texture takes a Patch and returns RGB, float32 [P,3] in 0..1 (display values).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_TABLE = np.random.default_rng(20240229).random((256, 256), dtype=np.float32)


@dataclass(frozen=True)
class Patch:
    """Points on faces, float32 [P] each.

    u, v: metres, u along the face's longer side. x: metres along its horizontal side. s, t: the
    place on the face in 0..1, s along the horizontal side, t upwards. color, second [P,3], scale
    and seed [P]: the material's (demo.shapes.Material).
    """

    u: np.ndarray
    v: np.ndarray
    x: np.ndarray
    s: np.ndarray
    t: np.ndarray
    color: np.ndarray
    second: np.ndarray
    scale: np.ndarray
    seed: np.ndarray


def cell(x: np.ndarray, y: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """A random number in 0..1 of each integer cell (x, y); all float [P]."""
    i = (x + seed * 37).astype(np.int32) & 255
    j = (y + seed * 91 + 11).astype(np.int32) & 255
    return _TABLE[i, j]


def noise(x: np.ndarray, y: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """Smooth noise in 0..1 with features of size 1; all float [P]."""
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = x - x0, y - y0
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    i = (x0 + seed * 37).astype(np.int32) & 255
    j = (y0 + seed * 91).astype(np.int32) & 255
    i1, j1 = (i + 1) & 255, (j + 1) & 255
    low = _TABLE[i, j] * (1 - fx) + _TABLE[i1, j] * fx
    high = _TABLE[i, j1] * (1 - fx) + _TABLE[i1, j1] * fx
    return low * (1 - fy) + high * fy


def mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Colours between a and b [P,3]: share [P] in 0..1 of b."""
    return a + (b - a) * share[:, None]


def plain(p: Patch) -> np.ndarray:
    """Paint with a faint unevenness."""
    return p.color * (0.96 + 0.07 * noise(p.u * 2.5, p.v * 2.5, p.seed))[:, None]


def wood(p: Patch) -> np.ndarray:
    """Grain along u."""
    warp = noise(p.u * 1.3, p.v * 5, p.seed)
    grain = 0.6 * noise(p.u * 1.1, (p.v * 22 + 5 * warp) * p.scale, p.seed)
    grain += 0.4 * noise(p.u * 3, p.v * 60 * p.scale, p.seed + 3)
    return mix(p.color, p.second, np.clip(1.6 * grain - 0.3, 0, 1))


def planks(p: Patch) -> np.ndarray:
    """Boards along u, each of its own tint, with dark joints."""
    v = p.v / (0.13 * p.scale)
    row = np.floor(v)
    u = p.u / 1.1 + cell(row, row * 3, p.seed)
    column = np.floor(u)
    tint = 0.8 + 0.4 * cell(column, row, p.seed)
    grain = noise(p.u * 2, p.v * 40, p.seed + row)
    gap = ((v - row) < 0.07) | ((u - column) < 0.008)
    return mix(p.color * tint[:, None], p.second, np.where(gap, 0.8, 0.3 * grain))


def tiles(p: Patch) -> np.ndarray:
    """Square tiles with grout."""
    u, v = p.u / (0.36 * p.scale), p.v / (0.36 * p.scale)
    i, j = np.floor(u), np.floor(v)
    tint = 0.93 + 0.12 * cell(i, j, p.seed)
    grout = ((u - i) < 0.035) | ((v - j) < 0.035)
    return mix(p.color * tint[:, None], p.second, np.where(grout, 0.7, 0.0))


def carpet(p: Patch) -> np.ndarray:
    """Pile: fine and broad flecks."""
    fine, broad = noise(p.u * 45, p.v * 45, p.seed), noise(p.u * 3, p.v * 3, p.seed)
    return p.color * (0.72 + 0.4 * fine + 0.12 * broad)[:, None]


def weave(p: Patch) -> np.ndarray:
    """Coarse cloth."""
    wave = np.sin(p.u * 130 / p.scale) * np.sin(p.v * 130 / p.scale)
    fleck = noise(p.u * 35, p.v * 35, p.seed)
    return mix(p.color, p.second, np.clip(0.35 + 0.25 * wave + 0.9 * (fleck - 0.5), 0, 1))


def stripes(p: Patch) -> np.ndarray:
    """Upright stripes."""
    return mix(p.color, p.second, ((p.x / (0.16 * p.scale)) % 1.0 < 0.5) * np.float32(0.9))


def checks(p: Patch) -> np.ndarray:
    """Crossing bands, darker where they cross."""
    a = (p.u / (0.24 * p.scale)) % 1.0 < 0.5
    b = (p.v / (0.24 * p.scale)) % 1.0 < 0.5
    return mix(p.color, p.second, 0.45 * (a.astype(np.float32) + b))


def dots(p: Patch) -> np.ndarray:
    """Discs of differing size."""
    u, v = p.u / (0.2 * p.scale), p.v / (0.2 * p.scale)
    i, j = np.floor(u), np.floor(v)
    radius = 0.2 + 0.2 * cell(i, j, p.seed)
    inside = np.hypot(u - i - 0.5, v - j - 0.5) < radius
    return mix(p.color, p.second, inside * np.float32(0.9))


def folds(p: Patch) -> np.ndarray:
    """Hanging cloth in folds."""
    x = p.x
    wave = 0.5 + 0.5 * np.sin(x * 55 + 4 * noise(x * 6, p.t, p.seed))
    return mix(p.color, p.second, 0.8 * wave)


def picture(p: Patch) -> np.ndarray:
    """Abstract patches, half of the time with a white mount."""
    a = noise(p.s * 3.2, p.t * 2.6, p.seed)
    b = noise(p.s * 5 + 9, p.t * 4, p.seed + 1)
    third = 1 - 0.8 * p.color
    art = mix(p.color, p.second, np.clip(7 * (a - 0.5) + 0.5, 0, 1))
    art = mix(art, third, (b > 0.62) * np.float32(0.85))
    margin = np.minimum(np.minimum(p.s, 1 - p.s), np.minimum(p.t, 1 - p.t)) < 0.13
    return np.where((margin & (p.seed % 2 < 1))[:, None], np.float32(0.93), art)


def screen(p: Patch) -> np.ndarray:
    """Near black with a slanting reflection."""
    gloss = np.clip(1 - np.abs(p.s + 0.5 * p.t - 0.4 - (p.seed % 7) / 10) * 3, 0, 1)
    return p.color + (0.1 * gloss + 0.03 * p.t)[:, None]


def outside(p: Patch) -> np.ndarray:
    """Sky above hills."""
    skyline = 0.15 + 0.4 * noise(p.s * 4, p.s * 0, p.seed)
    land = p.second * (0.6 + 0.5 * noise(p.s * 14, p.t * 14, p.seed))[:, None]
    return np.where((p.t < skyline)[:, None], land, p.color * (0.85 + 0.15 * p.t)[:, None])


def spine(p: Patch) -> np.ndarray:
    """The back of a book: two bands or a title."""
    band = (np.abs(p.t - 0.14) < 0.035) | (np.abs(p.t - 0.86) < 0.035)
    title = (p.t > 0.45) & (p.t < 0.75) & (np.abs(p.s - 0.5) < 0.24)
    fitting = np.where(p.seed % 3 < 2, band, title)
    return mix(p.color, p.second, fitting * np.float32(0.8))


def leaves(p: Patch) -> np.ndarray:
    """Light and dark foliage."""
    return mix(p.color, p.second, np.clip(4 * (noise(p.u * 16, p.v * 16, p.seed) - 0.4), 0, 1))


TEXTURES: dict[str, Callable[[Patch], np.ndarray]] = {
    f.__name__: f
    for f in (plain, wood, planks, tiles, carpet, weave, stripes, checks, dots, folds, picture,
              screen, outside, spine, leaves)
}  # fmt: skip
