"""How the surfaces lean that a depth image shows."""

import torch
import torch.nn.functional as F

# A Kinect's focal length over the longer side of its image, from camera_params.m of NYUv2's
# toolbox: a frame that is higher than wide is of a camera that was turned.
FOCAL = 518.858 / 640
# The depth is averaged over squares of 2 * width/160 + 1 pixels: 5 at a width of 320, 9 at 640.
SMOOTHING = 1 / 160


def surface_slopes(
    depth: torch.Tensor, length: torch.Tensor | float, input_width: int
) -> torch.Tensor:
    """How each pixel's surface leans to the right and downwards: float32 [N,2,H,W], -pi/2..pi/2.

    depth: int32 [N,H,W] in millimetres; 0, missing, gives 0, and counts in no mean. length: of the
    whole frame's longer side in pixels of this depth, a number or float [N,1,1]; input_width: of
    the network's input, by which the depth is smoothed.

    The arctangent of d ln(depth) / dx, for x in focal lengths. On the plane n . P = c the depth
    along the ray (x, y, 1) is c / (n_x x + n_y y + n_z): the derivative is -n_x / (n . ray), which
    says how the plane stands to the line of sight, and not how far away it is.
    """
    known = (depth > 0)[:, None].float()
    logarithm = torch.log(depth.clamp(min=1)[:, None].float()) * known
    radius = max(1, round(input_width * SMOOTHING))
    share = _mean(known, radius)
    smooth = _mean(logarithm, radius) / share.clamp(min=1e-6)
    both = torch.cat([smooth, (share > 0).float()], 1)
    around = F.pad(both, (1, 1, 1, 1), mode="replicate")
    focal = FOCAL * length
    slopes = []
    for before, after in (
        (around[:, :, 1:-1, :-2], around[:, :, 1:-1, 2:]),
        (around[:, :, :-2, 1:-1], around[:, :, 2:, 1:-1]),
    ):
        there = known[:, 0] * before[:, 1] * after[:, 1]
        slopes.append(torch.atan((after[:, 0] - before[:, 0]) / 2 * focal) * there)
    return torch.stack(slopes, 1)


def _mean(plane: torch.Tensor, radius: int) -> torch.Tensor:
    """The mean over squares around each pixel, [N,1,H,W]; the frame's edge goes on outside."""
    padded = F.pad(plane, (radius,) * 4, mode="replicate")
    side = 2 * radius + 1
    return F.avg_pool2d(F.avg_pool2d(padded, (1, side), 1), (side, 1), 1)
