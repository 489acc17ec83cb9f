"""Test-time views: what a network is shown of an image, and the way back for its answer.

The only module that knows ttach.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from ttach import functional

from nyuseg.config.prediction import View
from nyuseg.config.sections import Data

# Sizes of scaled inputs are multiples of it: what the deepest encoder divides by.
STEP = 32


def augment(view: View, images: torch.Tensor, data: Data) -> torch.Tensor:
    """What the network sees of images float32 [N,C,H,W] in a view; of another size when scaled.

    A mirror image keeps the coordinate channels, because they say where a pixel lies in the input,
    and what leans to the right leans to the left in it. Colour is scaled bilinearly, every other
    channel by the nearest pixel: a mean of two depths belongs to neither surface.
    """
    seen = images if view.scale == 1 else _resize(images, scaled_size(view, images.shape[-2:]))
    if not view.flip:
        return seen
    flipped = functional.hflip(seen).clone()
    if data.xy_channels:
        flipped[:, data.xy_channels] = seen[:, data.xy_channels]
    for channel in data.negated_channels:
        flipped[:, channel] *= -1
    return flipped


def deaugment(view: View, answer: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """Bring a network's answer to a view, [N,C,h,w], back to the identity's `grid` (height, width).

    Bilinear where the size differs; what sums to 1 over C still does.
    """
    straight = functional.hflip(answer) if view.flip else answer
    if tuple(straight.shape[-2:]) == tuple(grid):
        return straight
    return F.interpolate(straight, tuple(grid), mode="bilinear", align_corners=False)


def scaled_size(view: View, size: Sequence[int]) -> tuple[int, int]:
    """Height and width of a view's input for an identity input of `size`."""
    height, width = (max(STEP, round(n * view.scale / STEP) * STEP) for n in size)
    return (size[0], size[1]) if view.scale == 1 else (height, width)


def _resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    colour = F.interpolate(images[:, :3], size, mode="bilinear", antialias=True)
    if images.shape[1] == 3:
        return colour
    rest = F.interpolate(images[:, 3:], size, mode="nearest-exact")
    return torch.cat([colour, rest], 1)
