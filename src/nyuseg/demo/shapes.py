"""Building blocks of the demo rooms: materials, boxes, pieces of furniture, scenes, cameras.

World axes: x and y on the floor, z up, metres. A piece is built in its own frame: x along its width
with 0 in the middle, y from 0 at its back to its front, z from 0 at its foot.
"""

from dataclasses import dataclass, replace
from math import cos, sin

import numpy as np

from nyuseg.data.classes import CLASS_NAMES

Color = tuple[float, float, float]
Span = tuple[float, float]
LABEL_ID = {name: number for number, name in enumerate(CLASS_NAMES)}


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    `kind` names the texture (demo.texture.TEXTURES), `color` and `second` are RGB in 0..1,
    `scale` stretches the pattern (1 = its natural size in metres), `seed` varies it. `soft` (0..1)
    rounds the shading of a box as of a cushion; `glow` adds light of its own.
    """

    kind: str
    color: Color
    second: Color = (0.5, 0.5, 0.5)
    scale: float = 1.0
    seed: float = 0.0
    soft: float = 0.0
    glow: float = 0.0


@dataclass(frozen=True)
class Box:
    """A box turned by `yaw` radians about the vertical through its centre; sizes in metres."""

    label: str
    material: Material
    center: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float = 0.0


def box(label: str, material: Material, x: Span, y: Span, z: Span, yaw: float = 0.0) -> Box:
    """A box that spans the three intervals (before it is turned by `yaw` about its centre)."""
    spans = (x, y, z)
    cx, cy, cz = ((low + high) / 2 for low, high in spans)
    hx, hy, hz = (max(abs(high - low) / 2, 0.002) for low, high in spans)
    return Box(label, material, (cx, cy, cz), (hx, hy, hz), yaw)


def moved(boxes: list[Box], x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> list[Box]:
    """The boxes turned by `yaw` about the origin and then shifted by (x, y, z)."""
    c, s = cos(yaw), sin(yaw)

    def move(b: Box) -> Box:
        bx, by, bz = b.center
        return replace(
            b, center=(c * bx - s * by + x, s * bx + c * by + y, bz + z), yaw=b.yaw + yaw
        )

    return [move(b) for b in boxes]


@dataclass(frozen=True)
class Piece:
    """Furniture in its own frame with the space it takes: width, depth, height at its back."""

    boxes: list[Box]
    width: float
    depth: float
    height: float


@dataclass(frozen=True)
class Camera:
    """A pinhole: position in metres; yaw (0 = along +x), pitch (up is positive), roll, radians."""

    position: tuple[float, float, float]
    yaw: float
    pitch: float
    roll: float

    def axes(self) -> np.ndarray:
        """Right, down and forward in world coordinates, the rows of a float64 [3,3]."""
        cy, sy, cp, sp = cos(self.yaw), sin(self.yaw), cos(self.pitch), sin(self.pitch)
        forward = np.array([cy * cp, sy * cp, sp])
        right = np.array([sy, -cy, 0.0])
        down = np.cross(forward, right)
        c, s = cos(self.roll), sin(self.roll)
        return np.stack([c * right + s * down, c * down - s * right, forward])


@dataclass(frozen=True)
class Light:
    """A point light: position in metres, RGB strength (1 = as bright as white paper needs)."""

    position: tuple[float, float, float]
    color: Color


@dataclass(frozen=True)
class Scene:
    """A room: `size` (x, y, z) in metres, its boxes (the first six are the shell), its lights."""

    scene_type: str
    size: tuple[float, float, float]
    boxes: list[Box]
    lights: list[Light]
    ambient: Color
    white: Color
    exposure: float


SHELL = 6  # floor, ceiling and four walls come first in Scene.boxes
