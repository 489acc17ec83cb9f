"""Furniture of the demo rooms, each a Piece in its own frame (see demo.shapes)."""

from math import pi

from nyuseg.demo import materials as look
from nyuseg.demo.materials import Rng, Style, shade
from nyuseg.demo.shapes import Box, Material, Piece, Span, box, moved
from nyuseg.demo.things import book_row, book_stack, scatter, table_lamp, television, vase


def legs(label: str, material: Material, x: Span, y: Span, top: float, thick: float) -> list[Box]:
    """Four legs at the corners of x by y, from the floor to `top`."""
    xs = ((x[0], x[0] + thick), (x[1] - thick, x[1]))
    ys = ((y[0], y[0] + thick), (y[1] - thick, y[1]))
    return [box(label, material, a, b, (0, top)) for a in xs for b in ys]


def cabinet(
    rng: Rng, material: Material, w: float, d: float, h: float, grid: tuple[int, int]
) -> list[Box]:
    """A closed body with `grid` (columns, rows) of doors or drawers and their handles."""
    boxes = [box("furniture", material, (-w / 2, w / 2), (0, d - 0.02), (0.06, h))]
    boxes.append(box("furniture", material, (-w / 2, w / 2), (0, d + 0.01), (h - 0.025, h)))
    plinth = look.paint(rng, (0.0, 0.1), (0.08, 0.2))
    boxes.append(box("furniture", plinth, (0.03 - w / 2, w / 2 - 0.03), (0, d - 0.06), (0, 0.06)))
    metal = look.paint(rng, (0.0, 0.3), (0.15, 0.8))
    columns, rows = grid
    cw, rh = w / columns, (h - 0.1) / rows
    for c in range(columns):
        for r in range(rows):
            x0, z0 = c * cw - w / 2, 0.07 + r * rh
            front = ((x0 + 0.012, x0 + cw - 0.012), (d - 0.02, d), (z0 + 0.012, z0 + rh - 0.012))
            boxes.append(box("furniture", material, *front))
            boxes.append(_handle(metal, x0 + cw / 2, z0 + rh / 2, d, cw, rh))
    return boxes


def _handle(metal: Material, x: float, z: float, d: float, wide: float, high: float) -> Box:
    # Tall fronts are doors with an upright handle at the side; flat ones are drawers.
    if high > wide:
        x += 0.36 * wide
        return box("furniture", metal, (x - 0.01, x + 0.01), (d, d + 0.03), (z - 0.08, z + 0.08))
    reach = min(0.07, 0.3 * wide)
    return box("furniture", metal, (x - reach, x + reach), (d, d + 0.03), (z - 0.01, z + 0.01))


def wardrobe(rng: Rng, style: Style) -> Piece:
    """A tall wardrobe with doors."""
    w, d, h = rng.uniform(1.0, 1.7), rng.uniform(0.52, 0.6), rng.uniform(1.85, 2.15)
    boxes = cabinet(rng, style.case, w, d, h, (2 if w < 1.35 else 3, 1))
    if rng.random() < 0.4:
        size = rng.uniform(0.13, 0.18)
        lid = Material("plain", look.hsv(rng, (0.06, 0.1), (0.3, 0.6), (0.5, 0.75)))
        boxes.append(box("objects", lid, (-size, 1.6 * size), (0.1, 0.45), (h, h + 1.2 * size)))
    return Piece(boxes, w, d, h)


def dresser(rng: Rng, style: Style) -> Piece:
    """A chest of drawers with small things, a television or a row of books on top."""
    w, d, h = rng.uniform(0.95, 1.5), rng.uniform(0.42, 0.52), rng.uniform(0.72, 0.95)
    boxes = cabinet(rng, style.case, w, d, h, (2, int(rng.integers(3, 5))))
    if rng.random() < 0.35:
        boxes += book_row(rng, (-0.45 * w, 0.45 * w), 0.24, h, 0.26)
        return Piece(boxes, w, d, h + 0.3)
    boxes += scatter(rng, (-w / 2, w / 2), (0.05, d), h, int(rng.integers(2, 4)))
    return Piece(boxes, w, d, h + 0.4)


def tv_bench(rng: Rng, style: Style) -> Piece:
    """A low cabinet with a television on it or on the wall above."""
    wide, d, h = rng.uniform(0.95, 1.4), rng.uniform(0.4, 0.48), rng.uniform(0.42, 0.75)
    w = wide + rng.uniform(0.15, 0.5)
    boxes = cabinet(rng, style.case, w, d, h, (int(rng.integers(2, 4)), 1 if h < 0.55 else 2))
    on_wall = h < 0.6 and rng.random() < 0.4
    at_y, at_z = (0.02, h + 0.3) if on_wall else (0.16, h)
    boxes += moved(television(rng, wide, not on_wall), 0, at_y, at_z)
    if rng.random() < 0.5:
        boxes += moved(vase(rng), w / 2 - 0.09, d - 0.14, h)
    return Piece(boxes, w, d, at_z + 0.6 * wide)


def bookcase(rng: Rng, style: Style) -> Piece:
    """Open shelves, most of them full of books."""
    w, d, h, e = rng.uniform(0.85, 1.5), rng.uniform(0.28, 0.34), rng.uniform(1.5, 2.1), 0.03
    case = style.case
    sides = [(-w / 2, e - w / 2), (w / 2 - e, w / 2)]
    boxes = [box("furniture", case, side, (0, d), (0, h)) for side in sides]
    boxes.append(box("furniture", case, (-w / 2, w / 2), (0, 0.015), (0, h)))
    count = round(h / 0.38)
    inside = (e - w / 2, w / 2 - e)
    for level in range(count + 1):
        z = 0.06 + level * (h - 0.06 - e) / count
        boxes.append(box("furniture", case, inside, (0, d - 0.005), (z - e / 2, z + e / 2)))
        if level == count:
            continue
        floor, room = z + e / 2, (h - 0.06 - e) / count - e
        if rng.random() < 0.88:
            end = inside[1] if rng.random() < 0.7 else inside[0] + rng.uniform(0.6, 0.85) * w
            boxes += book_row(rng, (inside[0] + 0.01, end), d, floor, room)
        else:
            boxes += moved(vase(rng), inside[0] + 0.3 * w, d / 2, floor)
            boxes += moved(book_stack(rng), inside[0] + 0.7 * w, d / 2, floor)
    return Piece(boxes, w, d, h)


def bed(rng: Rng, style: Style) -> Piece:
    """A bed with its head at the wall, with one or two night stands."""
    w, length, top = rng.uniform(1.1, 1.8), rng.uniform(1.95, 2.1), rng.uniform(0.42, 0.54)
    wood, x = style.case, (-w / 2, w / 2)
    boxes = [box("bed", wood, x, (0, 0.07), (0, rng.uniform(0.85, 1.15)))]
    boxes += legs("bed", wood, x, (0.05, length), 0.2, 0.07)
    boxes.append(box("bed", wood, x, (0.05, length), (0.14, top - 0.2)))
    inside = (0.02 - w / 2, w / 2 - 0.02)
    mattress = look.linen(rng, False)
    boxes.append(box("bed", mattress, inside, (0.07, length - 0.02), (top - 0.2, top)))
    quilt = look.linen(rng, True)
    fold = rng.uniform(0.6, 0.9)
    over = (-w / 2 - 0.03, w / 2 + 0.03)
    boxes.append(box("bed", quilt, over, (fold, length + 0.02), (top - 0.22, top + 0.06)))
    boxes.append(box("bed", mattress, over, (fold - 0.02, fold + 0.25), (top - 0.1, top + 0.075)))
    boxes += _pillows(rng, w, top)
    if rng.random() < 0.3:
        boxes.append(box("bed", wood, x, (length, length + 0.05), (0, top + 0.1)))
    total = w
    for side in (-1, 1):
        if rng.random() < 0.75:
            boxes += moved(night_stand(rng, style), side * (w / 2 + 0.31), 0.02)
            total = w + 1.1
    return Piece(boxes, total, length + 0.05, 1.2)


def _pillows(rng: Rng, w: float, top: float) -> list[Box]:
    count = 1 if w < 1.35 else 2
    cloth = look.linen(rng, rng.random() < 0.3)
    boxes = []
    for i in range(count):
        middle = (i + 0.5) * w / count - w / 2
        half = 0.42 * w / count if count == 2 else 0.34
        x, yaw = (middle - half, middle + half), rng.uniform(-0.08, 0.08)
        boxes.append(box("bed", cloth, x, (0.12, 0.5), (top, top + 0.14), yaw))
    return boxes


def night_stand(rng: Rng, style: Style) -> list[Box]:
    """A small chest with a lamp or books on it."""
    h = rng.uniform(0.45, 0.58)
    boxes = cabinet(rng, style.case, 0.46, 0.4, h, (1, 2))
    top = table_lamp(rng) if rng.random() < 0.6 else book_stack(rng)
    return boxes + moved(top, 0, 0.2, h)


def sofa(rng: Rng, style: Style, seats: int = 0) -> Piece:
    """A sofa (or, with one seat, an armchair) with cushions."""
    seats = seats or int(rng.integers(2, 4))
    cloth, seat = style.sofa, rng.uniform(0.6, 0.72)
    arm, d, back = rng.uniform(0.14, 0.22), rng.uniform(0.82, 0.95), rng.uniform(0.74, 0.9)
    w = seats * seat + 2 * arm
    dark = Material("plain", shade(cloth.color, 0.35))
    boxes = [box("sofa", dark, (0.05 - w / 2, w / 2 - 0.05), (0.05, d - 0.06), (0, 0.08))]
    boxes.append(box("sofa", cloth, (-w / 2, w / 2), (0, d - 0.03), (0.08, 0.3)))
    boxes.append(box("sofa", cloth, (-w / 2, w / 2), (0, 0.2), (0.3, back)))
    height = rng.uniform(0.55, 0.64)
    for x in ((-w / 2, arm - w / 2), (w / 2 - arm, w / 2)):
        boxes.append(box("sofa", cloth, x, (0, d), (0.06, height)))
    for i in range(seats):
        x0 = arm - w / 2 + i * seat
        x = (x0 + 0.008, x0 + seat - 0.008)
        boxes.append(box("sofa", cloth, x, (0.18, d - 0.01), (0.3, 0.45)))
        boxes.append(box("sofa", cloth, x, (0.18, 0.36), (0.45, back + 0.03)))
        if rng.random() < 0.35:
            m, yaw = x0 + seat / 2, rng.uniform(-0.3, 0.3)
            spot = ((m - 0.2, m + 0.2), (0.37, 0.49), (0.45, 0.8))
            boxes.append(box("sofa", look.cushion(rng), *spot, yaw))
    return Piece(boxes, w, d, back + 0.05)


def table(rng: Rng, material: Material, w: float, d: float, h: float) -> list[Box]:
    """A table with legs or side panels; x is its middle, y from 0 to d."""
    x, y, thick = (-w / 2, w / 2), (0.0, d), rng.uniform(0.03, 0.05)
    boxes = [box("table", material, x, y, (h - thick, h))]
    inset = ((x[0] + 0.04, x[1] - 0.04), (y[0] + 0.04, y[1] - 0.04))
    if rng.random() < 0.75:
        boxes += legs("table", material, *inset, h - thick, rng.uniform(0.045, 0.08))
    else:
        for panel in ((x[0] + 0.03, x[0] + 0.07), (x[1] - 0.07, x[1] - 0.03)):
            boxes.append(box("table", material, panel, inset[1], (0, h - thick)))
    low, high = inset[1]
    boxes.append(
        box("table", material, inset[0], (low, low + 0.025), (h - thick - 0.08, h - thick))
    )
    boxes.append(
        box("table", material, inset[0], (high - 0.025, high), (h - thick - 0.08, h - thick))
    )
    return boxes


def chair(rng: Rng, style: Style) -> list[Box]:
    """A chair about the origin that looks along +y."""
    frame, s, h = style.chair, 0.23, rng.uniform(0.86, 1.02)
    boxes = legs("chair", frame, (-s, s), (-s, s), 0.43, 0.045)
    boxes.append(box("chair", frame, (-s, s), (-s, s), (0.41, 0.45)))
    boxes.append(box("chair", style.seat, (0.01 - s, s - 0.01), (0.03 - s, s), (0.45, 0.5)))
    for x in ((-s, 0.045 - s), (s - 0.045, s)):
        boxes.append(box("chair", frame, x, (-s, 0.045 - s), (0.43, h)))
    if frame.kind == "wood":
        slats = [(h - 0.12, h), (h - 0.27, h - 0.17), (h - 0.4, h - 0.33)]
        return boxes + [box("chair", frame, (-s, s), (-s, 0.03 - s), z) for z in slats]
    rest = box("chair", style.seat, (0.03 - s, s - 0.03), (-s, 0.05 - s), (0.56, h))
    return [*boxes, rest]


def desk(rng: Rng, style: Style) -> Piece:
    """A desk at the wall with things on it and a chair drawn up to it."""
    w, d = rng.uniform(1.15, 1.6), rng.uniform(0.6, 0.72)
    boxes = table(rng, style.table, w, d, 0.74)
    boxes += scatter(rng, (-w / 2, w / 2), (0.05, 0.4), 0.74, int(rng.integers(2, 4)), 0.45)
    turn, x = pi + rng.uniform(-0.5, 0.5), rng.uniform(-0.2, 0.2)
    boxes += moved(chair(rng, style), x, d + rng.uniform(0.12, 0.3), 0, turn)
    return Piece(boxes, w, d + 0.6, 1.2)


def sofa_group(rng: Rng, style: Style) -> Piece:
    """A sofa with a low table before it."""
    piece = sofa(rng, style)
    w, d = rng.uniform(0.8, 1.2), rng.uniform(0.45, 0.6)
    front = piece.depth + rng.uniform(0.35, 0.5)
    low = table(rng, style.table, w, d, 0.42)
    low += scatter(rng, (-0.4 * w, 0.4 * w), (0.05, d - 0.05), 0.42, int(rng.integers(1, 3)), 0.5)
    return Piece(piece.boxes + moved(low, 0, front), piece.width, front + d, piece.height)


def dining_set(rng: Rng, style: Style) -> Piece:
    """A table with chairs at its sides; the middle of the set is at y = depth / 2."""
    w, d = rng.uniform(1.2, 1.8), rng.uniform(0.8, 0.95)
    out = 0.42
    boxes = moved(table(rng, style.table, w, d, 0.75), 0, out)
    things = scatter(rng, (-0.25 * w, 0.25 * w), (0.25, d - 0.2), 0.75, int(rng.integers(1, 3)))
    boxes += moved(things, 0, out)
    for side, yaw in ((0.0, 0.0), (1.0, pi)):
        for x in (-0.25 * w, 0.25 * w):
            if rng.random() < 0.85:
                y = 0.3 + rng.uniform(-0.05, 0.08) if side == 0 else 2 * out + d - 0.3
                seat = chair(rng, style)
                boxes += moved(seat, x, y, 0, yaw + rng.uniform(-0.2, 0.2))
    return Piece(boxes, w + 0.1, d + 2 * out, 1.0)
