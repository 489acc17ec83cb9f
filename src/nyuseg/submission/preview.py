"""Pictures for people: image, depth and mask side by side, with a legend."""

import cv2
import numpy as np

from nyuseg.data.classes import CLASS_NAMES, PALETTE, colorize
from nyuseg.data.depth import inverse_depth

GAP = 6
HEIGHT = 240
WIDEST = 960
LEGEND_ROW = 26


def preview_row(image: np.ndarray, depth: np.ndarray | None, *masks: np.ndarray) -> np.ndarray:
    """One frame as a strip, uint8 [240,W,3]: image, depth if there is any, each mask.

    image: uint8 [H,W,3]; depth: uint16 [H,W] in mm; masks: uint8 [H,W] of 0..12 or 255.
    """
    width = min(max(1, round(image.shape[1] * HEIGHT / image.shape[0])), WIDEST)
    cells = [_resize(image, width, cv2.INTER_AREA)]
    if depth is not None:
        near = cv2.applyColorMap((inverse_depth(depth) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
        near = cv2.cvtColor(near, cv2.COLOR_BGR2RGB)
        near[depth == 0] = 0
        cells.append(_resize(near, width, cv2.INTER_NEAREST))
    cells += [_resize(colorize(mask), width, cv2.INTER_NEAREST) for mask in masks]
    gap = np.full((HEIGHT, GAP, 3), 255, np.uint8)
    return np.concatenate([part for cell in cells for part in (cell, gap)][:-1], axis=1)


def preview_sheet(rows: list[np.ndarray], titles: list[str]) -> np.ndarray:
    """Stack strips of preview_row under their column titles and over a legend of the classes."""
    width = max(row.shape[1] for row in rows)
    sheet = [_titles(titles, width)]
    for row in rows:
        sheet += [_widen(row, width), np.full((GAP, width, 3), 255, np.uint8)]
    return np.concatenate([*sheet, _legend(width)])


def _resize(picture: np.ndarray, width: int, interpolation: int) -> np.ndarray:
    return cv2.resize(picture, (width, HEIGHT), interpolation=interpolation)


def _widen(row: np.ndarray, width: int) -> np.ndarray:
    border = ((0, 0), (0, width - row.shape[1]), (0, 0))
    return np.pad(row, border, constant_values=255)


def _text(canvas: np.ndarray, text: str, x: int, y: int) -> None:
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (30, 30, 30), 1, cv2.LINE_AA)


def _titles(titles: list[str], width: int) -> np.ndarray:
    canvas = np.full((LEGEND_ROW, width, 3), 255, np.uint8)
    for i, title in enumerate(titles):
        _text(canvas, title, i * (width + GAP) // len(titles) + 4, 18)
    return canvas


def _legend(width: int) -> np.ndarray:
    columns = max(1, width // 110)
    rows = -(-len(CLASS_NAMES) // columns)
    canvas = np.full((rows * LEGEND_ROW, width, 3), 255, np.uint8)
    for i, (name, color) in enumerate(zip(CLASS_NAMES, PALETTE.tolist(), strict=True)):
        x, y = i % columns * 110 + 4, i // columns * LEGEND_ROW
        cv2.rectangle(canvas, (x, y + 6), (x + 16, y + 20), color, -1)
        _text(canvas, name, x + 22, y + 18)
    return canvas
