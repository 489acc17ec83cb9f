"""Random changes for training; the only module that knows Albumentations."""

import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # Its import would ask the network for a version.

import albumentations as A
import cv2
import numpy as np

from nyuseg.config.augment import Augment
from nyuseg.config.values import GEOMETRY
from nyuseg.data.depth import changed_depth
from nyuseg.data.frames import Frame
from nyuseg.dataloading.letterbox import letterbox
from nyuseg.dataloading.seeds import mix_seed
from nyuseg.dataloading.zoom_crop import ZoomCrop

# Standard deviation of a Kinect's depth over its square, in millimetres (Khoshelham and Elberink,
# Sensors 2012).
KINECT_NOISE = 1.425e-6


class Augmentation:
    """A native frame's training input as a function (frame, seed); equal seeds, equal result.

    A frame holds image uint8 [H,W,3], label uint8 [H,W], perhaps depth uint16 [H,W] and kinds of
    values.GEOMETRY. Colour is interpolated, the rest takes the nearest pixel; pixels from outside
    the frame become black, missing (0) and void (255). Without a zoom, crop or working size it is
    the report's: the frame is letterboxed to `size`, then moved; with one of them, see ZoomCrop.
    Colour, blur and noise change the image alone, and are drawn apart: they leave the geometry as
    it is without. So do holes, noise and dropout of the depth; they leave `depth` and add
    `depth_seen`, what the network is to see of it.
    """

    def __init__(
        self, options: Augment, size: tuple[int, int], inverse_shares: np.ndarray | None = None
    ) -> None:
        self.size = size
        self.zoom_crop = ZoomCrop(options, size, inverse_shares) if options.zooms else None
        shift = (-options.shift, options.shift)
        self.pipeline = A.Compose(
            [
                A.HorizontalFlip(p=options.flip),
                # The report's ShiftScaleRotate, under the name that Albumentations 2 gives it.
                A.Affine(
                    translate_percent={"x": shift, "y": shift},
                    scale=(1 - options.scale, 1 + options.scale),
                    rotate=(-options.rotate, options.rotate),
                    keep_ratio=True,
                    interpolation=cv2.INTER_LINEAR,
                    mask_interpolation=cv2.INTER_NEAREST,
                    fill=0,
                    fill_mask=0,
                    p=1.0,
                ),
                # A crop of the full size changes nothing; the report lists it, so it stays.
                A.RandomCrop(height=size[0], width=size[1], p=0.5),
            ],
            additional_targets=dict.fromkeys(("depth", *GEOMETRY), "mask"),
        )
        self.recolour = _recolour(options)
        self.spoil = SpoiltDepth(options) if options.spoils_depth else None

    def __call__(self, native: Frame, seed: int) -> Frame:
        if self.zoom_crop:
            frame = self.zoom_crop(native, np.random.default_rng(seed))
        else:
            frame = self._move(letterbox(native, self.size), seed)
        if self.recolour:
            _seed(self.recolour, mix_seed(seed, 1))
            frame["image"] = _keep_black(
                frame["image"], self.recolour(image=frame["image"])["image"]
            )
        if self.spoil:
            frame["depth_seen"] = self.spoil(frame["depth"], mix_seed(seed, 2))
        return frame

    def _move(self, frame: Frame, seed: int) -> Frame:
        _seed(self.pipeline, seed)
        # There is one fill value for all masks, 0: missing for depth. Shifting labels by one
        # makes it void for them: in uint8, 255 + 1 is 0, and 0 - 1 is 255 again.
        shifted = frame["label"] + np.uint8(1)
        rest = {kind: pixels for kind, pixels in frame.items() if kind != "label"}
        moved = self.pipeline(**rest, mask=shifted)
        return {**{kind: moved[kind] for kind in rest}, "label": moved["mask"] - np.uint8(1)}


def _seed(pipeline: A.Compose, seed: int) -> None:
    """Give each transform random numbers of its own. Compose.set_random_seed would give all of them
    the same, so that whether a frame is mirrored decided where it is shifted."""
    for number, transform in enumerate(pipeline.transforms):
        transform.set_random_seed(mix_seed(seed, 0, number) if number else seed)


class SpoiltDepth:
    """A depth as a worse sensor measures it: a function (depth uint16 [H,W], seed) -> the same.

    Sometimes none of it; else with noise of a standard deviation in proportion to the square of the
    distance, and with rectangular holes.
    """

    def __init__(self, options: Augment) -> None:
        self.options = options
        hole = (0.05, 0.25)
        self.holes = A.Compose([A.CoarseDropout((1, 8), hole, hole, fill=0, p=options.depth_holes)])

    def __call__(self, depth: np.ndarray, seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        if random.random() < self.options.depth_drop:
            return np.zeros_like(depth)
        if self.options.depth_noise:
            part = np.float32(random.uniform(0, self.options.depth_noise) * KINECT_NOISE)
            noise = random.standard_normal(depth.shape, np.float32)
            exact = depth.astype(np.float32)
            depth = changed_depth(depth, exact + part * exact * exact * noise)
        _seed(self.holes, mix_seed(seed, 0))
        return self.holes(image=depth)["image"]


def _keep_black(image: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """A changed image that is black where it was, as it must be outside the frame."""
    black = cv2.inRange(image, (0, 0, 0), (0, 0, 0))
    return cv2.bitwise_and(changed, changed, mask=cv2.bitwise_not(black))


def _recolour(options: Augment) -> A.Compose | None:
    """What changes an image's colours; None when nothing does."""
    change = (1 - options.colour / 2, 1 + options.colour / 2)
    hue = options.colour / 10
    found = [
        A.ColorJitter(change, change, change, (-hue, hue), p=0.8 * (options.colour > 0)),
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2), p=options.blur),
        # The same in all three colours: a third of the time, and what a dark room looks like.
        A.GaussNoise(std_range=(0.01, 0.05), per_channel=False, p=options.noise),
    ]
    return A.Compose(found) if any(one.p for one in found) else None
