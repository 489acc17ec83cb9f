"""Zoom and crop in training: from the native frame to the network's input in one resampling."""

from dataclasses import dataclass

import cv2
import numpy as np

from nyuseg.config.augment import Augment
from nyuseg.config.values import GEOMETRY
from nyuseg.data.classes import VOID
from nyuseg.data.depth import changed_depth
from nyuseg.data.frames import Frame
from nyuseg.dataloading.rare import rare_place

# Crops that are drawn for a frame until one holds a labelled pixel.
TRIES = 10
# Between these parts of a crop's height and width lies what it is laid around: off the rim, over
# which a rotation may carry it.
RIM = (0.1, 0.9)
Place = tuple[int, int]


@dataclass(frozen=True)
class Motion:
    """Where a training input is taken from: `matrix` float [2,3] maps its pixels (x, y) to those of
    the native frame; `scale` is its pixels per native pixel, `zoom` that against a frame
    that is predicted."""

    matrix: np.ndarray
    scale: float
    zoom: float


class ZoomCrop:
    """Fits a frame into the working size, zooms, turns, mirrors and crops it.

    All of it is one affine map, drawn anew for each frame: the working size's scale, times a zoom
    from augment.zoom that is uniform in its logarithm, times one from augment.scale; a rotation
    about the crop's centre; a flip. The crop lies anywhere inside the zoomed frame; a zoomed frame
    that is smaller lies anywhere inside the crop; augment.shift moves it further, as a part of the
    crop's size. Pixels from outside the frame become black, missing (0) and void (255).

    Depth stays in millimetres as it was measured, though what is zoomed in looks nearer: everybody
    trains so on this data. With augment.zoom_depth it is divided by how much larger the frame
    is than where it is predicted, so that depth, size in the picture and size in the room agree.
    """

    def __init__(
        self, options: Augment, size: tuple[int, int], inverse_shares: np.ndarray | None = None
    ) -> None:
        self.options, self.inverse_shares = options, inverse_shares
        self.size, self.working = size, options.working_size or size
        self.crop = options.crop or self.working

    def __call__(self, native: Frame, random: np.random.Generator) -> Frame:
        """The input of a native frame: image uint8 [H,W,3], label uint8 [H,W], perhaps depth uint16
        [H,W] and kinds of values.GEOMETRY, of the crop's size, and how much larger than predicted
        it is, `zoom`, float32 []. Where a crop holds no labelled pixel, or not the rare class that
        it is laid around, others are tried."""
        for _ in range(TRIES):
            place = self._rare_place(native["label"], random)
            motion = self._draw(native["image"].shape[:2], random, place)
            label = self._warp(native["label"], motion.matrix, cv2.INTER_NEAREST, VOID)
            if (label == native["label"][place] if place else label != VOID).any():
                break
        frame = {"image": self._image(native["image"], motion), "label": label}
        if "depth" in native:
            depth = self._warp(native["depth"], motion.matrix, cv2.INTER_NEAREST, 0)
            if self.options.zoom_depth:
                depth = changed_depth(depth, depth / np.float32(motion.zoom))
            frame["depth"] = depth
        for kind in GEOMETRY:
            if kind in native:
                frame[kind] = self._warp(native[kind], motion.matrix, cv2.INTER_NEAREST, 0)
        frame["zoom"] = np.array(motion.zoom, np.float32)
        return frame

    def _rare_place(self, label: np.ndarray, random: np.random.Generator) -> Place | None:
        """A pixel (y, x) of a rare class, with the probability augment.rare_crop; or None."""
        if not self.options.rare_crop or random.random() >= self.options.rare_crop:
            return None
        assert self.inverse_shares is not None  # They come with the option.
        return rare_place(label, self.inverse_shares, random)

    def _draw(
        self, native: tuple[int, int], random: np.random.Generator, place: Place | None
    ) -> Motion:
        options, crop = self.options, np.array(self.crop[::-1])  # As (x, y) from here on.
        zoom = float(np.exp(random.uniform(*np.log(options.zoom or (1, 1)))))
        zoom *= random.uniform(1 - options.scale, 1 + options.scale)
        where, shift = random.uniform(0, 1, 2), random.uniform(-options.shift, options.shift, 2)
        angle = np.radians(random.uniform(-options.rotate, options.rotate))
        flip = random.random() < options.flip
        scale = zoom * min(self.working[0] / native[0], self.working[1] / native[1])
        gap = scale * np.array(native[::-1]) - crop
        corner = where * gap + shift * crop
        if place:
            x = native[1] - 1 - place[1] if flip else place[1]
            inside = scale * (np.array([x, place[0]]) + 0.5)
            ends = np.clip([gap * 0, gap], inside - RIM[1] * crop, inside - RIM[0] * crop)
            corner = ends[0] + where * (ends[1] - ends[0])
        corner = np.rint(corner)  # A frame that is only cropped stays as sharp as it is.
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        # A place p of the crop, counted from its edge, shows the frame's place (turn p + move) / s.
        move = corner + crop / 2 - turn @ crop / 2
        matrix = np.column_stack([turn, move]) / scale
        if flip:
            matrix[0] = [0, 0, native[1]] - matrix[0]
        predicted = min(self.size[0] / native[0], self.size[1] / native[1])
        return Motion(_between_centres(matrix), scale, scale / predicted)

    def _image(self, image: np.ndarray, motion: Motion) -> np.ndarray:
        """The image, interpolated; it is averaged first where it shrinks by two or more."""
        matrix, parts = motion.matrix, int(1 / motion.scale)
        if parts > 1:
            size = [-(-n // parts) for n in image.shape[1::-1]]
            factor = np.array(size) / image.shape[1::-1]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            matrix = matrix * factor[:, None]
            matrix[:, 2] += (factor - 1) / 2
        return self._warp(image, matrix, cv2.INTER_LINEAR, 0)

    def _warp(self, pixels: np.ndarray, matrix: np.ndarray, method: int, fill: int) -> np.ndarray:
        return cv2.warpAffine(
            pixels,
            matrix,
            self.crop[::-1],
            flags=method | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(fill, fill, fill),
        )


def _between_centres(matrix: np.ndarray) -> np.ndarray:
    """An affine map of places, counted from the edge, as one of pixels: their centres are half a
    pixel inside."""
    moved = matrix.copy()
    moved[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5
    return moved
