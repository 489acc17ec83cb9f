"""Random materials: each class of thing is a family of plausible colours and textures."""

from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np

from nyuseg.demo.shapes import Color, Material, Span

Rng = np.random.Generator


def hsv(rng: Rng, hue: Span, saturation: Span, value: Span) -> Color:
    """A random RGB colour, 0..1, from ranges of hue, saturation and value (all 0..1)."""
    return hsv_to_rgb(rng.uniform(*hue) % 1.0, rng.uniform(*saturation), rng.uniform(*value))


def shade(color: Color, factor: float) -> Color:
    """The colour made lighter (factor above 1) or darker."""
    red, green, blue = (min(1.0, channel * factor) for channel in color)
    return red, green, blue


def _seed(rng: Rng) -> float:
    return float(rng.integers(0, 500))


def wood(rng: Rng, value: Span = (0.3, 0.75)) -> Material:
    """Wood with grain along the longer side of each face."""
    color = hsv(rng, (0.045, 0.1), (0.35, 0.7), value)
    return Material("wood", color, shade(color, rng.uniform(0.6, 0.8)), 1.0, _seed(rng))


def paint(rng: Rng, saturation: Span = (0.0, 0.12), value: Span = (0.75, 0.95)) -> Material:
    """Smooth paint of one colour."""
    return Material("plain", hsv(rng, (0, 1), saturation, value), seed=_seed(rng))


def case_wood(rng: Rng) -> Material:
    """Cabinets, wardrobes, shelves: mid-brown to dark wood, at times painted."""
    return wood(rng, (0.3, 0.62)) if rng.random() < 0.72 else paint(rng)


def table_wood(rng: Rng) -> Material:
    """Table tops: lighter and redder than the cabinets, at times white or dark."""
    roll = rng.random()
    if roll < 0.7:
        color = hsv(rng, (0.06, 0.1), (0.4, 0.65), (0.6, 0.88))
        return Material("wood", color, shade(color, rng.uniform(0.75, 0.85)), 1.6, _seed(rng))
    return wood(rng, (0.28, 0.4)) if roll < 0.85 else paint(rng, (0.0, 0.05), (0.85, 0.95))


def chair_frame(rng: Rng) -> Material:
    """Legs and backs of chairs: dark wood, black or a strong paint."""
    roll = rng.random()
    if roll < 0.4:
        return wood(rng, (0.2, 0.4))
    return (
        paint(rng, (0.0, 0.2), (0.1, 0.25)) if roll < 0.7 else paint(rng, (0.5, 0.8), (0.35, 0.7))
    )


def chair_cloth(rng: Rng) -> Material:
    """Seats of chairs: strong, warm cloth."""
    color = hsv(rng, (-0.06, 0.14), (0.5, 0.85), (0.35, 0.7))
    return Material("weave", color, shade(color, 0.7), 0.8, _seed(rng), soft=0.4)


def sofa_cloth(rng: Rng) -> Material:
    """Upholstery: coarse weave in muted colours, or leather."""
    if rng.random() < 0.25:
        return Material("plain", hsv(rng, (0.03, 0.08), (0.4, 0.7), (0.2, 0.45)), soft=0.7)
    color = hsv(rng, (0.3, 0.95), (0.12, 0.5), (0.25, 0.6))
    return Material("weave", color, shade(color, 0.72), 1.0, _seed(rng), soft=0.6)


def cushion(rng: Rng) -> Material:
    """Loose cushions: lively cloth."""
    color, second = (
        hsv(rng, (0, 1), (0.3, 0.7), (0.5, 0.9)),
        hsv(rng, (0, 1), (0.0, 0.4), (0.7, 0.95)),
    )
    return Material(str(rng.choice(["weave", "stripes"])), color, second, 0.5, _seed(rng), soft=0.9)


def linen(rng: Rng, pattern: bool) -> Material:
    """Bed linen: light; a quilt has a pattern in a second colour."""
    color = hsv(rng, (0, 1), (0.0, 0.12), (0.85, 0.98))
    if not pattern:
        return Material("plain", color, seed=_seed(rng), soft=0.8)
    kind = str(rng.choice(["stripes", "checks", "dots"]))
    second = hsv(rng, (0, 1), (0.15, 0.5), (0.55, 0.9))
    return Material(kind, color, second, rng.uniform(0.7, 1.4), _seed(rng), soft=0.5)


def wall_paint(rng: Rng) -> Material:
    """Painted walls in pastel colours; some wallpaper."""
    # Mostly creams and yellows, as in most homes.
    hue = (0.06, 0.17) if rng.random() < 0.5 else (0.0, 1.0)
    color = hsv(rng, hue, (0.02, 0.22), (0.7, 0.95))
    kind = str(rng.choice(["plain", "stripes", "dots"], p=[0.8, 0.12, 0.08]))
    return Material(kind, color, shade(color, rng.uniform(0.88, 0.95)), 1.5, _seed(rng))


def ceiling_paint(rng: Rng) -> Material:
    """Ceilings near white."""
    return Material("plain", hsv(rng, (0, 1), (0.0, 0.06), (0.86, 0.98)), seed=_seed(rng))


def flooring(rng: Rng) -> Material:
    """Planks, tiles or carpet."""
    kind = str(rng.choice(["planks", "tiles", "carpet"], p=[0.5, 0.2, 0.3]))
    if kind == "planks":
        color = hsv(rng, (0.05, 0.1), (0.3, 0.6), (0.35, 0.75))
    elif kind == "tiles":
        color = hsv(rng, (0.02, 0.15), (0.05, 0.3), (0.5, 0.85))
    else:
        color = hsv(rng, (0, 1), (0.08, 0.3), (0.35, 0.65))
    return Material(kind, color, shade(color, 0.55), rng.uniform(0.8, 1.3), _seed(rng))


def rug(rng: Rng) -> Material:
    """A rug, lying flat: strong pattern."""
    color, second = (
        hsv(rng, (0, 1), (0.3, 0.6), (0.3, 0.6)),
        hsv(rng, (0, 1), (0.1, 0.5), (0.5, 0.8)),
    )
    kind = str(rng.choice(["carpet", "checks", "stripes", "dots"]))
    return Material(kind, color, second, rng.uniform(1.0, 2.5), _seed(rng))


def curtain(rng: Rng) -> Material:
    """Curtains: folded cloth, lit from behind."""
    color = hsv(rng, (0, 1), (0.05, 0.5), (0.6, 0.95))
    return Material("folds", color, shade(color, 0.6), 1.0, _seed(rng), glow=0.12)


def outside(rng: Rng) -> Material:
    """The view through a window pane: sky above green, very bright."""
    color = hsv(rng, (0.52, 0.62), (0.05, 0.4), (0.9, 1.0))
    return Material("outside", color, hsv(rng, (0.2, 0.4), (0.1, 0.5), (0.4, 0.8)), 1.0, _seed(rng),
                    glow=rng.uniform(0.9, 1.8))  # fmt: skip


def canvas(rng: Rng) -> Material:
    """The content of a picture: bright abstract patches."""
    hue = rng.random()
    color = hsv(rng, (hue, hue + 0.1), (0.5, 0.95), (0.5, 0.95))
    second = hsv(rng, (hue + 0.3, hue + 0.7), (0.5, 0.95), (0.4, 0.95))
    return Material("picture", color, second, 1.0, _seed(rng))


def screen(rng: Rng) -> Material:
    """The black glossy front of a television."""
    value = rng.uniform(0.03, 0.07)
    return Material("screen", (value, value, value * 1.15), seed=_seed(rng))


def spine(rng: Rng) -> Material:
    """The back of a book: saturated, with a title band."""
    color = hsv(rng, (0, 1), (0.45, 1.0), (0.3, 0.95))
    if rng.random() < 0.18:
        color = hsv(rng, (0, 1), (0.0, 0.2), (0.8, 0.95))
    return Material("spine", color, hsv(rng, (0, 1), (0.0, 0.5), (0.75, 1.0)), 1.0, _seed(rng))


def glaze(rng: Rng) -> Material:
    """Small things: ceramics, plastic, tins in strong colours."""
    color = hsv(rng, (0, 1), (0.55, 1.0), (0.45, 0.95))
    kind = str(rng.choice(["plain", "stripes"], p=[0.75, 0.25]))
    return Material(kind, color, shade(color, 1.5), 0.3, _seed(rng), soft=0.5)


def leaves(rng: Rng) -> Material:
    """Foliage of a plant."""
    color = hsv(rng, (0.22, 0.36), (0.4, 0.75), (0.3, 0.6))
    return Material("leaves", color, shade(color, 0.35), 1.0, _seed(rng))


def lampshade(rng: Rng) -> Material:
    """A lit shade."""
    return Material("plain", hsv(rng, (0.08, 0.14), (0.1, 0.45), (0.9, 1.0)), soft=0.6, glow=0.7)


@dataclass(frozen=True)
class Style:
    """What the pieces of one room have in common."""

    case: Material
    table: Material
    chair: Material
    seat: Material
    sofa: Material
    frame: Material


def style(rng: Rng) -> Style:
    """A random style of a room."""
    frame = wood(rng, (0.12, 0.6)) if rng.random() < 0.6 else paint(rng, (0, 0.1), (0.05, 0.95))
    return Style(
        case_wood(rng), table_wood(rng), chair_frame(rng), chair_cloth(rng), sofa_cloth(rng), frame
    )
