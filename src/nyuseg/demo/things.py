"""Small things of the demo rooms: books, vases, lamps, plants, pictures, televisions, windows."""

from math import pi

from nyuseg.demo import materials as look
from nyuseg.demo.materials import Rng, Style
from nyuseg.demo.shapes import Box, Material, Piece, Span, box, moved


def cylinder(label: str, material: Material, radius: float, z: Span) -> list[Box]:
    """A round thing about the origin, as two squares turned against each other."""
    side = (-0.88 * radius, 0.88 * radius)
    return [box(label, material, side, side, z, yaw) for yaw in (0.0, pi / 4)]


def vase(rng: Rng) -> list[Box]:
    """A vase: belly and neck."""
    material, radius, height = look.glaze(rng), rng.uniform(0.06, 0.1), rng.uniform(0.18, 0.32)
    belly = cylinder("objects", material, radius, (0, 0.7 * height))
    return belly + cylinder("objects", material, 0.5 * radius, (0.7 * height, height))


def bottle(rng: Rng) -> list[Box]:
    """A bottle with a cap."""
    radius, height = rng.uniform(0.04, 0.06), rng.uniform(0.22, 0.32)
    body = cylinder("objects", look.glaze(rng), radius, (0, 0.75 * height))
    return body + cylinder("objects", look.glaze(rng), 0.45 * radius, (0.75 * height, height))


def carton(rng: Rng, size: float = 0.11) -> list[Box]:
    """A closed box, turned a little."""
    w, d, h = (rng.uniform(0.6, 1.0) * size for _ in range(3))
    return [box("objects", look.glaze(rng), (-w, w), (-d, d), (0, 1.6 * h), rng.uniform(-0.6, 0.6))]


def table_lamp(rng: Rng) -> list[Box]:
    """A lamp with a foot, a stem and a lit shade."""
    metal, height = look.paint(rng, (0.0, 0.4), (0.2, 0.7)), rng.uniform(0.38, 0.55)
    foot = cylinder("objects", metal, 0.08, (0, 0.03)) + cylinder(
        "objects", metal, 0.02, (0, height)
    )
    return foot + cylinder(
        "objects", look.lampshade(rng), rng.uniform(0.11, 0.15), (height - 0.2, height)
    )


def book_stack(rng: Rng) -> list[Box]:
    """A few books lying on each other."""
    boxes, z = [], 0.0
    for _ in range(rng.integers(3, 7)):
        w, d, h = rng.uniform(0.11, 0.15), rng.uniform(0.08, 0.11), rng.uniform(0.025, 0.05)
        yaw = rng.uniform(-0.3, 0.3)
        boxes.append(box("books", look.spine(rng), (-w, w), (-d, d), (z, z + h), yaw))
        z += h
    return boxes


def plant(rng: Rng, height: float) -> list[Box]:
    """A pot with foliage of `height` metres."""
    pot, green = look.glaze(rng), look.leaves(rng)
    boxes = cylinder("objects", pot, 0.22 * height, (0, 0.35 * height))
    for level, reach in ((0.35, 0.24), (0.55, 0.34), (0.78, 0.22)):
        side, z = (-reach * height, reach * height), (level * height, (level + 0.22) * height)
        boxes.append(box("objects", green, side, side, z, rng.uniform(0, pi)))
    return boxes


def small_plant(rng: Rng) -> list[Box]:
    """A plant for a table or a shelf."""
    return plant(rng, rng.uniform(0.28, 0.42))


def scatter(rng: Rng, x: Span, y: Span, z: float, count: int, books: float = 0.3) -> list[Box]:
    """About `count` small things on a surface at height z, side by side along x.

    `books` is the chance of each that it is a stack of books.
    """
    count = min(count, int((x[1] - x[0]) / 0.26))
    makers = (vase, bottle, carton, table_lamp, small_plant, vase)
    boxes: list[Box] = []
    for slot in range(count):
        make = book_stack if rng.random() < books else makers[rng.integers(len(makers))]
        step = (x[1] - x[0]) / count
        at_x = x[0] + step * (slot + 0.5) + rng.uniform(-0.5, 0.5) * max(0.0, step - 0.26)
        at_y = rng.uniform(y[0] + 0.12, max(y[1] - 0.12, y[0] + 0.121))
        boxes += moved(make(rng), at_x, at_y, z)
    return boxes


def book_row(rng: Rng, x: Span, depth: float, z: float, room: float) -> list[Box]:
    """Books that stand on a shelf from x[0] on, at most `room` metres tall."""
    boxes: list[Box] = []
    at = x[0]
    while True:
        width = rng.uniform(0.025, 0.06)
        if at + width > x[1]:
            return boxes
        height, deep = room * rng.uniform(0.7, 0.95), depth * rng.uniform(0.75, 0.95)
        boxes.append(box("books", look.spine(rng), (at, at + width), (0.02, deep), (z, z + height)))
        at += width + (0.003 if rng.random() < 0.93 else 0.05)


def picture(rng: Rng, style: Style) -> Piece:
    """A framed picture (its lower edge at z = 0) for a wall."""
    w, h = rng.uniform(0.5, 1.3), rng.uniform(0.45, 0.8)
    frame = box("picture", style.frame, (-w / 2, w / 2), (0, 0.03), (0, h))
    e = rng.uniform(0.03, 0.055)
    inner = box("picture", look.canvas(rng), (e - w / 2, w / 2 - e), (0.03, 0.034), (e, h - e))
    return Piece([frame, inner], w, 0.04, h)


def television(rng: Rng, width: float, stand: bool) -> list[Box]:
    """A flat television with its lower edge at z = 0 (or on a foot), its back at y = 0."""
    h, z = 0.57 * width, 0.06 if stand else 0.0
    bezel = look.paint(rng, (0.0, 0.1), (0.05, 0.12))
    body = box("tv", bezel, (-width / 2, width / 2), (0, 0.05), (z, z + h))
    pane = (0.025 - width / 2, width / 2 - 0.025)
    front = box("tv", look.screen(rng), pane, (0.05, 0.055), (z + 0.025, z + h - 0.025))
    foot = [box("tv", bezel, (-0.15, 0.15), (-0.06, 0.12), (0, 0.015)),
            box("tv", bezel, (-0.03, 0.03), (0, 0.04), (0, z))]  # fmt: skip
    return [body, front, *(foot if stand else [])]


def window(rng: Rng, style: Style, width: float, height: float) -> Piece:
    """A window: bright pane, frame with mullions, perhaps curtains; lower edge at z = 0."""
    frame = look.paint(rng, (0, 0.05), (0.8, 0.98)) if rng.random() < 0.7 else style.case
    w, e = width / 2, 0.05
    boxes = [box("window", look.outside(rng), (-w, w), (0, 0.015), (0, height))]
    bars = [(-w, e - w), (w - e, w)]
    bars += [(x - 0.02, x + 0.02) for x in ([0.0] if width < 1.5 else [-w / 3, w / 3])]
    boxes += [box("window", frame, bar, (0, 0.05), (0, height)) for bar in bars]
    levels = [(0, e), (height - e, height)]
    if rng.random() < 0.6:
        levels.append((0.6 * height - 0.02, 0.6 * height + 0.02))
    boxes += [box("window", frame, (-w, w), (0, 0.045), level) for level in levels]
    boxes.append(box("window", frame, (-w - 0.05, w + 0.05), (0, 0.065), (-0.04, 0)))
    if rng.random() < 0.6:
        cloth, wide = look.curtain(rng), rng.uniform(0.22, 0.4)
        low = -rng.uniform(0.1, 0.16)
        for side in ((-w - 0.15, -w - 0.15 + wide), (w + 0.15 - wide, w + 0.15)):
            boxes.append(box("window", cloth, side, (0.07, 0.11), (low, height + 0.1)))
    return Piece(boxes, width + 0.3, 0.12, height + 0.1)


def door(rng: Rng, style: Style) -> Piece:
    """A closed door with its frame: it counts as wall."""
    white = look.paint(rng, (0, 0.06), (0.8, 0.95))
    leaf = style.case if rng.random() < 0.4 else white
    boxes = [box("wall", white, (-0.5, 0.5), (0, 0.03), (0, 2.1))]
    boxes.append(box("wall", leaf, (-0.42, 0.42), (0.03, 0.045), (0.0, 2.02)))
    for z in ((0.2, 0.9), (1.1, 1.85)):
        boxes.append(box("wall", leaf, (-0.28, 0.28), (0.045, 0.055), z))
    knob = look.paint(rng, (0.2, 0.5), (0.3, 0.7))
    boxes.append(box("wall", knob, (0.33, 0.38), (0.045, 0.1), (1.0, 1.04)))
    return Piece(boxes, 1.0, 0.1, 2.1)
