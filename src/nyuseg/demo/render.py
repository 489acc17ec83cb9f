"""Ray casting of a demo room: which box each pixel sees, how far, in what light."""

from dataclasses import dataclass
from functools import reduce
from math import radians, tan

import cv2
import numpy as np

from nyuseg.demo.shapes import LABEL_ID, SHELL, Camera, Scene
from nyuseg.demo.texture import TEXTURES, Patch

# Half of the horizontal field of view of the Kinect, 57 degrees; pixels are square.
HALF_VIEW = tan(radians(57 / 2))
NEAR = 0.05
FAR = 50.0


def focal(width: int) -> float:
    """Focal length in pixels of an image of `width` pixels."""
    return width / 2 / HALF_VIEW


class World:
    """A scene as arrays: boxes [N,...], materials [N,...]."""

    def __init__(self, scene: Scene) -> None:
        boxes, materials = scene.boxes, [b.material for b in scene.boxes]
        self.scene = scene
        self.label = np.array([LABEL_ID[b.label] for b in boxes], np.uint8)
        self.center = np.array([b.center for b in boxes], np.float32)
        self.half = np.array([b.half for b in boxes], np.float32)
        yaw = np.array([b.yaw for b in boxes])
        self.cos, self.sin = np.cos(yaw).astype(np.float32), np.sin(yaw).astype(np.float32)
        names = list(TEXTURES)
        self.kind = np.array([names.index(m.kind) for m in materials])
        self.color = np.array([m.color for m in materials], np.float32)
        self.second = np.array([m.second for m in materials], np.float32)
        self.numbers = np.array([(m.scale, m.seed, m.soft, m.glow) for m in materials], np.float32)
        self.casts_shadow = self._big(np.array([m.glow for m in materials]) > 0)

    def _big(self, lit: np.ndarray) -> list[int]:
        # Thin and small boxes (books, handles, rugs) would cost much and show little.
        size = np.sort(self.half, axis=1)
        area = size[:, 1] * size[:, 2]
        flat = np.isin(self.label, [LABEL_ID[name] for name in ("picture", "window", "books")])
        big = (area > 0.02) & (size[:, 0] > 0.008) & ~lit & ~flat
        big[: SHELL + 4] = False
        return np.flatnonzero(big).tolist()

    def turn(
        self, which: np.ndarray | int, x: np.ndarray, y: np.ndarray, sign: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rotate (x, y) into the frames of the boxes `which` (sign 1) or back (sign -1)."""
        c, s = self.cos[which], self.sin[which] * np.float32(sign)
        return c * x + s * y, c * y - s * x


@dataclass(frozen=True)
class Hits:
    """What the pixels see: z depth in metres float32 [H,W], index of the box int32 [H,W],
    rays float32 [3,H,W] in world axes (1 m of depth long), origin float32 [3]."""

    depth: np.ndarray
    index: np.ndarray
    rays: np.ndarray
    origin: np.ndarray


def cast(world: World, camera: Camera, height: int, width: int) -> Hits:
    """Cast a ray through each pixel's centre."""
    axes = camera.axes()
    f = focal(width)
    a = ((np.arange(width) + 0.5 - width / 2) / f)[None, :, None]
    b = ((np.arange(height) + 0.5 - height / 2) / f)[:, None, None]
    rays = np.ascontiguousarray(
        (axes[2] + a * axes[0] + b * axes[1]).transpose(2, 0, 1), np.float32
    )
    origin = np.array(camera.position, np.float32)
    depth = np.full((height, width), FAR, np.float32)
    index = np.zeros((height, width), np.int32)
    for i, window in _windows(world, origin, axes, f, height, width):
        _hit_box(world, i, origin, rays[:, *window], depth[window], index[window])
    return Hits(depth, index, rays, origin)


def _windows(
    world: World, origin: np.ndarray, axes: np.ndarray, f: float, h: int, w: int
) -> list[tuple[int, tuple[slice, slice]]]:
    """The boxes in view with the image rectangle that holds each, near ones first."""
    signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    corner = signs[None] * world.half[:, None]
    every = np.arange(len(world.half))[:, None]
    x, y = world.turn(every, corner[..., 0], corner[..., 1], -1)
    seen = (np.stack([x, y, corner[..., 2]], -1) + (world.center - origin)[:, None]) @ axes.T
    z = seen[..., 2]
    flat = seen[..., :2] / np.maximum(z, NEAR)[..., None] * f + (w / 2, h / 2)
    low, high = np.floor(flat.min(1)).astype(int) - 1, np.ceil(flat.max(1)).astype(int) + 2
    crossing = z.min(1) < NEAR
    low[crossing], high[crossing] = 0, (w, h)
    low, high = np.maximum(low, 0), np.minimum(high, (w, h))
    good = (z.max(1) > NEAR) & (low < high).all(1)
    order = [i for i in np.argsort(z.min(1), kind="stable") if good[i]]
    return [(i, (slice(low[i, 1], high[i, 1]), slice(low[i, 0], high[i, 0]))) for i in order]


def _slab(
    world: World, i: int, start: np.ndarray, ray: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where rays enter and leave box i, in ray lengths; start and ray broadcast as [3,...]."""
    center, half = world.center[i], world.half[i]
    sx, sy = world.turn(i, start[0] - center[0], start[1] - center[1], 1)
    rx, ry = world.turn(i, ray[0], ray[1], 1)
    enter, leave = [], []
    for s, r, h in ((sx, rx, half[0]), (sy, ry, half[1]), (start[2] - center[2], ray[2], half[2])):
        inverse = 1 / np.where(np.abs(r) < 1e-7, np.float32(1e-7), r)
        middle, reach = -s * inverse, h * np.abs(inverse)
        enter.append(middle - reach)
        leave.append(middle + reach)
    return reduce(np.maximum, enter), reduce(np.minimum, leave)


def _hit_box(
    world: World, i: int, origin: np.ndarray, ray: np.ndarray, depth: np.ndarray, index: np.ndarray
) -> None:
    enter, leave = _slab(world, i, origin, ray)
    hit = (enter < leave) & (enter > NEAR) & (enter < depth)
    depth[hit] = enter[hit]
    index[hit] = i


def radiance(world: World, hits: Hits) -> np.ndarray:
    """Light that reaches the camera from each pixel: linear RGB float32 [H,W,3], about 0..2."""
    shape = hits.depth.shape
    point = (hits.origin[:, None, None] + hits.depth * hits.rays).astype(np.float32)
    which = hits.index.ravel()
    normal, albedo = _surface(world, which, point.reshape(3, -1))
    light = _light(world, point, normal.reshape(3, *shape))
    glow = world.numbers[which, 3].reshape(*shape, 1)
    return albedo.reshape(*shape, 3) ** 2.2 * (light + glow)


def _surface(world: World, which: np.ndarray, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normals [3,P] in world axes and texture colours [P,3] of points [3,P] on boxes [P]."""
    away, half = point.T - world.center[which], world.half[which]
    x, y = world.turn(which, away[:, 0], away[:, 1], 1)
    local = np.stack([x, y, away[:, 2]], 1)
    share = local / half
    # The face is the one whose plane is nearest, measured in metres: thin boxes stay exact.
    axis = np.argmin(np.abs(np.abs(local) - half), axis=1)
    every = np.arange(len(axis))
    normal = world.numbers[which, 2:3] * 0.55 * np.clip(share, -1, 1) ** 5
    normal[every, axis] = np.sign(local[every, axis])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    nx, ny = world.turn(which, normal[:, 0], normal[:, 1], -1)
    horizontal, upward = np.array([1, 0, 0])[axis], np.array([2, 2, 1])[axis]
    place, side = local + half, 2 * half
    a, b = place[every, horizontal], place[every, upward]
    wide, tall = side[every, horizontal], side[every, upward]
    swap = tall > wide
    u, v = np.where(swap, b, a), np.where(swap, a, b)
    albedo = _paint(world, which, (u, v, a, a / wide, b / tall))
    return np.stack([nx, ny, normal[:, 2]]), albedo


def _paint(world: World, which: np.ndarray, places: tuple[np.ndarray, ...]) -> np.ndarray:
    albedo = np.empty((len(which), 3), np.float32)
    kinds = world.kind[which]
    for number, texture in enumerate(TEXTURES.values()):
        at = np.flatnonzero(kinds == number)
        if at.size:
            i = which[at]
            scale, seed = world.numbers[i, 0], world.numbers[i, 1]
            u, v, x, s, t = (place[at] for place in places)
            patch = Patch(u, v, x, s, t, world.color[i], world.second[i], scale, seed)
            albedo[at] = texture(patch)
    return np.clip(albedo, 0, 1)


def _light(world: World, point: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Light that falls on points [3,H,W] with normals [3,H,W]: linear RGB float32 [H,W,3]."""
    scene = world.scene
    open_sky = 0.45 + 0.55 * _reached(world, point, normal, (0.15, 0.1, 1.2), relative=True)
    dim = (open_sky * _corners(point, normal, scene.size))[..., None]
    total = dim * np.array(scene.ambient, np.float32) * (0.85 + 0.15 * normal[2])[..., None]
    for light in scene.lights:
        place = np.array(light.position, np.float32)
        way = place[:, None, None] - point
        distance = np.sqrt((way**2).sum(0))
        facing = (way * normal).sum(0) / np.maximum(distance, 0.05)
        soft = np.clip(0.15 + 0.85 * facing, 0, 1) / (1 + 0.28 * distance**2)
        # Two points of the lamp give a half shadow at the border of each shadow.
        lit = sum(_reached(world, point, normal, place + off) for off in (0.0, 0.2)) / 2
        total = total + (soft * lit)[..., None] * (0.5 + 0.5 * dim) * np.array(light.color)
    return total.astype(np.float32)


def _corners(point: np.ndarray, normal: np.ndarray, size: tuple[float, float, float]) -> np.ndarray:
    """Darkening in 0..1 where floor, walls and ceiling meet, float32 [H,W]."""
    dark = np.ones(point.shape[1:], np.float32)
    for axis in range(3):
        beside = 1 - np.abs(normal[axis])
        for gap in (point[axis], size[axis] - point[axis]):
            dark *= 1 - 0.32 * beside * np.exp(-np.maximum(gap, 0) / 0.2)
    return dark


def _reached(
    world: World,
    point: np.ndarray,
    normal: np.ndarray,
    light: np.ndarray | tuple[float, float, float],
    relative: bool = False,
) -> np.ndarray:
    """Share 0..1 of the light at `light` (relative: seen from each point) that arrives, [H,W].

    Shadows are soft and dear, so they are computed at every second pixel.
    """
    start = point[:, ::2, ::2] + 0.012 * normal[:, ::2, ::2]
    place = np.array(light, np.float32)[:, None, None]
    way = np.broadcast_to(place, start.shape) if relative else place - start
    free: np.ndarray = np.ones(start.shape[1:], np.float32)
    for i in world.casts_shadow:
        enter, leave = _slab(world, i, start, way)
        free[(enter < leave) & (leave > 0) & (enter < 1)] = 0
    height, width = point.shape[1:]
    # The blur is a fixed share of the image: the same penumbra at every size.
    free = cv2.GaussianBlur(free, (0, 0), max(0.3, width / 320))
    return cv2.resize(free, (width, height), interpolation=cv2.INTER_LINEAR)
