"""Random rooms of five types: what stands where, how it is lit, where a camera may be."""

from math import atan2, hypot, pi, radians

import numpy as np

from nyuseg.demo import furniture as furniture
from nyuseg.demo import materials as look
from nyuseg.demo import things as things
from nyuseg.demo.layout import Layout
from nyuseg.demo.materials import Rng, Style
from nyuseg.demo.shapes import SHELL, Box, Camera, Color, Light, Piece, Scene, box, moved

# What stands in a room, in the order of placement, and with what chance.
RECIPES: dict[str, tuple[tuple[str, float], ...]] = {
    "bedroom": (("bed", 1), ("tv_bench", 0.85), ("bookcase", 0.85), ("desk", 0.85),
                ("wardrobe", 0.7), ("armchair", 0.6), ("dresser", 0.4)),
    "living_room": (("sofa_group", 1), ("tv_bench", 1), ("bookcase", 0.9), ("dining_set", 0.6),
                    ("bed", 0.3), ("bookcase", 0.3), ("armchair", 0.5), ("dresser", 0.3)),
    "study": (("desk", 1), ("bookcase", 1), ("bed", 0.75), ("sofa", 0.6), ("bookcase", 0.5),
              ("tv_bench", 0.85), ("dresser", 0.3), ("chair", 0.4)),
    "dining_room": (("dining_set", 1), ("sofa", 0.8), ("bookcase", 0.85), ("tv_bench", 0.85),
                    ("bed", 0.5), ("dresser", 0.6), ("wardrobe", 0.3)),
    "studio": (("bed", 1), ("sofa_group", 0.6), ("sofa", 0.5), ("tv_bench", 0.95),
               ("bookcase", 0.9), ("desk", 0.8), ("wardrobe", 0.4)),
}  # fmt: skip
SCENE_TYPES = tuple(RECIPES)


def make_scene(scene_type: str, rng: Rng) -> Scene:
    """A random room of one of SCENE_TYPES."""
    large = 0.5 if scene_type in ("studio", "living_room") else 0.0
    size = (rng.uniform(3.8, 5.0) + large, rng.uniform(3.8, 5.2) + large, rng.uniform(2.4, 2.8))
    style, layout = look.style(rng), Layout(size, rng)
    layout.hang(things.door(rng, style), 0.0, floor=0.9)
    lights = [_lamp(size, rng)]
    for _ in range(int(rng.integers(1, 3))):
        light = _window(layout, style, rng)
        lights += [light] if light else []
    if rng.random() < 0.5:
        layout.boxes += _rug(size, rng)
    for name, chance in RECIPES[scene_type]:
        if rng.random() < chance:
            _place(name, layout, style, rng)
    _fill(layout, style, rng)
    ambient = rng.uniform(0.28, 0.42)
    white = (rng.uniform(0.92, 1.12), 1.0, rng.uniform(0.82, 1.08))
    return Scene(scene_type, size, _shell(size, rng) + layout.boxes, lights[:3],
                 (ambient, ambient, ambient), white, rng.uniform(0.85, 1.15))  # fmt: skip


def _place(name: str, layout: Layout, style: Style, rng: Rng) -> None:
    if name == "dining_set":
        turn = rng.choice([0.0, pi / 2]) + rng.uniform(-0.1, 0.1)
        layout.lay(furniture.dining_set(rng, style), turn, 0.15, central=0.5)
    elif name == "chair":
        layout.lay(Piece(moved(furniture.chair(rng, style), 0, 0.25), 0.5, 0.5, 1.0),
                   rng.uniform(0, 2 * pi), 0.2)  # fmt: skip
    elif name == "armchair":
        piece = furniture.sofa(rng, style, seats=1)
        layout.lay(piece, rng.uniform(0, 2 * pi), 0.25) or layout.stand(piece)
    else:
        layout.stand(getattr(furniture, name)(rng, style))


def _fill(layout: Layout, style: Style, rng: Rng) -> None:
    """Pictures on the free walls; plants, cartons, bins and lamps on the free floor."""
    for _ in range(int(rng.integers(4, 7))):
        layout.hang(things.picture(rng, style), rng.uniform(1.25, 1.5))
    for _ in range(int(rng.integers(2, 5))):
        layout.stand(_floor_thing(rng), front=0.05)


def _floor_thing(rng: Rng) -> Piece:
    roll = rng.random()
    if roll < 0.4:
        boxes = things.plant(rng, rng.uniform(0.7, 1.2))
    elif roll < 0.6:
        boxes = things.cylinder("objects", look.glaze(rng), 0.16, (0, rng.uniform(0.3, 0.5)))
    elif roll < 0.85:
        boxes = things.carton(rng, 0.24)
    else:
        metal, top = look.paint(rng, (0, 0.3), (0.1, 0.8)), rng.uniform(1.4, 1.65)
        boxes = things.cylinder("objects", metal, 0.14, (0, 0.03))
        boxes += things.cylinder("objects", metal, 0.02, (0, top))
        boxes += things.cylinder("objects", look.lampshade(rng), 0.2, (top - 0.28, top))
    return Piece(moved(boxes, 0, 0.3), 0.6, 0.6, 1.0)


def _window(layout: Layout, style: Style, rng: Rng) -> Light | None:
    width, height = rng.uniform(1.1, 2.1), rng.uniform(1.1, 1.35)
    piece = things.window(rng, style, width, height)
    if not layout.hang(piece, rng.uniform(0.8, 0.95)):
        return None
    pane = layout.boxes[-len(piece.boxes)]
    x, y, z = pane.center
    # The light enters from just inside the pane.
    inward = [np.sign(side / 2 - at) * (abs(side / 2 - at) > side / 2 - 0.1) for side, at in
              zip(layout.size, (x, y), strict=False)]  # fmt: skip
    power = rng.uniform(0.6, 1.6)
    day: Color = (power * 0.95, power, power * rng.uniform(1.0, 1.15))
    return Light((x + 0.25 * inward[0], y + 0.25 * inward[1], z), day)


def _lamp(size: tuple[float, float, float], rng: Rng) -> Light:
    x, y = (side * rng.uniform(0.38, 0.62) for side in size[:2])
    power = rng.uniform(1.2, 2.2)
    return Light((x, y, size[2] - 0.3), (power, power * 0.92, power * rng.uniform(0.7, 0.9)))


def _rug(size: tuple[float, float, float], rng: Rng) -> list[Box]:
    w, d = (side * rng.uniform(0.2, 0.32) for side in size[:2])
    flat = box("floor", look.rug(rng), (-w, w), (-d, d), (0, 0.012))
    return moved([flat], size[0] * rng.uniform(0.4, 0.6), size[1] * rng.uniform(0.4, 0.6))


def _shell(size: tuple[float, float, float], rng: Rng) -> list[Box]:
    """Floor, ceiling and walls as thick boxes around the room, then the skirting boards."""
    x, y, z = size
    plain, accent = look.wall_paint(rng), look.wall_paint(rng)
    walls = [accent if rng.random() < 0.2 else plain for _ in range(4)]
    boxes = [
        box("floor", look.flooring(rng), (-0.2, x + 0.2), (-0.2, y + 0.2), (-0.2, 0)),
        box("ceiling", look.ceiling_paint(rng), (-0.2, x + 0.2), (-0.2, y + 0.2), (z, z + 0.2)),
        box("wall", walls[0], (-0.2, x + 0.2), (-0.2, 0), (0, z)),
        box("wall", walls[1], (x, x + 0.2), (-0.2, y + 0.2), (0, z)),
        box("wall", walls[2], (-0.2, x + 0.2), (y, y + 0.2), (0, z)),
        box("wall", walls[3], (-0.2, 0), (-0.2, y + 0.2), (0, z)),
    ]
    board = look.paint(rng, (0, 0.06), (0.8, 0.96)) if rng.random() < 0.7 else look.wood(rng)
    e, tall = 0.015, (0.0, rng.uniform(0.06, 0.1))
    for span_x, span_y in (((0, x), (0, e)), ((0, x), (y - e, y)), ((0, e), (0, y)),
                           ((x - e, x), (0, y))):  # fmt: skip
        boxes.append(box("wall", board, span_x, span_y, tall))
    return boxes


def propose_camera(scene: Scene, rng: Rng) -> Camera:
    """A random camera at eye height, clear of all boxes, that looks at something far enough."""
    things_inside = scene.boxes[SHELL + 4 :]
    while True:
        x, y = (rng.uniform(0.3, side - 0.3) for side in scene.size[:2])
        z = rng.uniform(1.25, 1.7)
        if any(_too_close(b, x, y, z) for b in things_inside):
            continue
        target = things_inside[rng.integers(len(things_inside))].center
        dx, dy = target[0] - x, target[1] - y
        if hypot(dx, dy) < 1.6:
            continue
        yaw = atan2(dy, dx) + rng.normal(0, radians(8))
        pitch = 0.5 * atan2(target[2] - z, hypot(dx, dy)) + rng.normal(radians(-7), radians(6))
        pitch = float(np.clip(pitch, radians(-26), radians(11)))
        return Camera((x, y, z), yaw, pitch, rng.normal(0, radians(1.5)))


def _too_close(b: Box, x: float, y: float, z: float) -> bool:
    # A camera may look over low furniture but not stand in or right beside tall things.
    reach = hypot(b.half[0], b.half[1])
    near = hypot(b.center[0] - x, b.center[1] - y) < min(reach, 1.1) + 0.25
    return near and b.center[2] + b.half[2] > z - 0.5 and b.center[2] - b.half[2] < z + 0.5
