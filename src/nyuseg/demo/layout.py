"""Where things go in a room: along walls, on walls, on the free floor, without overlap."""

from math import cos, pi, sin

from nyuseg.demo.materials import Rng
from nyuseg.demo.shapes import Box, Piece, moved

Rect = tuple[float, float, float, float]
TRIES = 30
# Yaw of each wall's inward normal against +y: the walls y = 0, x = max, y = max, x = 0.
WALL_YAW = (0.0, pi / 2, pi, -pi / 2)


def hit(a: Rect, b: Rect) -> bool:
    """Whether two rectangles (x0, y0, x1, y1) overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


class Layout:
    """The boxes placed so far, in world coordinates, and the space they take.

    `size` is the room's (x, y, z) in metres.
    """

    def __init__(self, size: tuple[float, float, float], rng: Rng) -> None:
        self.size, self.rng = size, rng
        self.boxes: list[Box] = []
        self._solid: list[Rect] = []
        self._clear: list[Rect] = []
        # Per wall: rectangles (along the wall from, height from, along to, height to).
        self._walls: list[list[Rect]] = [[], [], [], []]

    def wall_length(self, wall: int) -> float:
        """Length of wall 0..3 in metres."""
        return self.size[wall % 2]

    def _at_wall(self, wall: int, along: float) -> tuple[float, float]:
        x, y, _ = self.size
        return ((along, 0.0), (x, along), (x - along, y), (0.0, y - along))[wall]

    def _footprint(self, wall: int, along: float, width: float, depth: float) -> Rect:
        x, y = self._at_wall(wall, along)
        c, s = cos(WALL_YAW[wall]), sin(WALL_YAW[wall])
        ends = [(c * u - s * v + x, s * u + c * v + y)
                for u, v in ((-width / 2, 0.0), (width / 2, depth))]  # fmt: skip
        (x0, y0), (x1, y1) = ends
        return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)

    def stand(self, piece: Piece, front: float = 0.4) -> bool:
        """Put a piece with its back to some wall, `front` metres before it free; False: no room."""
        for _ in range(TRIES):
            wall = int(self.rng.integers(4))
            slack = self.wall_length(wall) - piece.width - 0.1
            if slack <= 0:
                continue
            along = 0.05 + piece.width / 2 + self.rng.random() * slack
            solid = self._footprint(wall, along, piece.width, piece.depth)
            clear = self._footprint(wall, along, piece.width, piece.depth + front)
            half = piece.width / 2
            strip = (along - half, 0.0, along + half, piece.height)
            if self._free(solid, clear) and not any(hit(strip, r) for r in self._walls[wall]):
                self._take(solid, clear)
                self._walls[wall].append(strip)
                self._add(piece, wall, along, 0.02, 0.0)
                return True
        return False

    def hang(self, piece: Piece, low: float, floor: float = 0.0) -> bool:
        """Put a piece on some wall with its lower edge at `low`; False when there is no room.

        A piece that reaches the floor (a door) keeps `floor` metres before it free.
        """
        for _ in range(TRIES):
            wall = int(self.rng.integers(4))
            slack = self.wall_length(wall) - piece.width - 0.3
            if slack <= 0:
                continue
            half = piece.width / 2
            along = 0.15 + half + self.rng.random() * slack
            strip = (
                along - half - 0.06,
                low - 0.06,
                along + half + 0.06,
                low + piece.height + 0.04,
            )
            clear = self._footprint(wall, along, piece.width, max(floor, 0.01))
            if any(hit(strip, r) for r in self._walls[wall]) or (floor and not self._free(clear)):
                continue
            self._walls[wall].append(strip)
            if floor:
                self._take(None, clear)
            self._add(piece, wall, along, 0.0, low)
            return True
        return False

    def lay(self, piece: Piece, turn: float, margin: float, central: float = 0.0) -> bool:
        """Put a piece on the free floor, turned by `turn` radians; False when there is no room.

        `central` in 0..1 pulls it to the middle of the room, `margin` metres stay free around.
        """
        w = abs(piece.width * cos(turn)) + abs(piece.depth * sin(turn))
        d = abs(piece.width * sin(turn)) + abs(piece.depth * cos(turn))
        for _ in range(TRIES):
            spans = [(self.size[0] - w) / 2 - margin, (self.size[1] - d) / 2 - margin]
            if min(spans) <= 0:
                return False
            x, y = (side / 2 + self.rng.uniform(-1, 1) * span * (1 - central)
                    for side, span in zip(self.size, spans, strict=False))  # fmt: skip
            solid = (x - w / 2, y - d / 2, x + w / 2, y + d / 2)
            grown = (solid[0] - margin, solid[1] - margin, solid[2] + margin, solid[3] + margin)
            if self._free(solid, grown):
                self._take(solid, solid)
                local = moved(piece.boxes, 0, -piece.depth / 2)
                self.boxes += moved(local, x, y, 0, turn)
                return True
        return False

    def _free(self, solid: Rect, clear: Rect | None = None) -> bool:
        taken = any(hit(solid, r) for r in self._clear)
        return not taken and not any(hit(clear or solid, r) for r in self._solid)

    def _take(self, solid: Rect | None, clear: Rect) -> None:
        self._clear.append(clear)
        if solid:
            self._solid.append(solid)

    def _add(self, piece: Piece, wall: int, along: float, gap: float, low: float) -> None:
        x, y = self._at_wall(wall, along)
        local = moved(piece.boxes, 0, gap, low)
        self.boxes += moved(local, x, y, 0, WALL_YAW[wall])
