"""Two streams through one encoder, the image and the depth, merged at each level by gates."""

import copy
import re
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from nyuseg.models.levels import Level

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


class TwoStream(nn.Module):
    """The image and the depth, as one batch of 2N images through one encoder.

    The depth enters as three equal channels, with the mean and deviation that it has in training.
    The encoder's weights serve both, its norms one stream each (see part_norms), as in GeminiFusion
    (Jia et al. 2024, arXiv 2406.01210). There, and in CMX, the streams also meet within the
    encoder; here, so that any encoder will do, they meet after it.
    """

    def __init__(self, levels: Sequence[Level]) -> None:
        super().__init__()
        self.places = [level.place for level in levels]
        self.depth_norm = nn.BatchNorm2d(1, affine=False)
        self.merges = nn.ModuleList(GatedMerge(level.channels) for level in levels)

    def forward(self, encoder: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
        """Features of both, of image [N,4,H,W]; those of the image where no decoder reads them."""
        depth = self.depth_norm(image[:, 3:]).expand(-1, 3, -1, -1)
        streams = [one.chunk(2) for one in encoder(torch.cat([image[:, :3], depth]))]
        features = [rgb for rgb, _ in streams]
        for place, merge in zip(self.places, self.merges, strict=True):
            features[place] = merge(*streams[place])
        return features


class GatedMerge(nn.Module):
    """Features of the image and of the depth, [N,C,H,W] each, to one [N,C,H,W].

    First each takes from the other what two gates let pass, one for each channel and one for each
    pixel: the rectification of CMX (Zhang et al. 2023, arXiv 2203.04838), both gates weighted by a
    half. Then a 1x1 convolution merges them, which starts as their mean. CMX mixes them by
    cross-attention before that, which is left out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 4)
        self.channel_gates = _gates(4 * channels, hidden, 2 * channels)
        self.pixel_gates = _gates(2 * channels, hidden, 2)
        self.merge = nn.Conv2d(2 * channels, channels, 1, bias=False)
        half = torch.eye(channels)[..., None, None] / 2
        with torch.no_grad():
            self.merge.weight.copy_(torch.cat([half, half], 1))

    def forward(self, rgb: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        both = torch.cat([rgb, depth], 1)
        pooled = torch.cat([pool((2, 3), keepdim=True) for pool in (both.mean, both.amax)], 1)
        gates = self.channel_gates(pooled).chunk(2, 1), self.pixel_gates(both).chunk(2, 1)
        to_rgb, to_depth = ((channel + pixel) / 2 for channel, pixel in zip(*gates, strict=True))
        rectified = torch.cat([rgb + to_rgb * depth, depth + to_depth * rgb], 1)
        return self.merge(rectified)


def _gates(before: int, hidden: int, after: int) -> nn.Sequential:
    first, second = nn.Conv2d(before, hidden, 1), nn.Conv2d(hidden, after, 1)
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.Sigmoid())


class NormOfEach(nn.Module):
    """A norm for each stream: rgb for the first half of a batch, depth for the second."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.rgb, self.depth = norm, copy.deepcopy(norm)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        rgb, depth = batch.chunk(2)
        return torch.cat([self.rgb(rgb), self.depth(depth)])


def part_norms(encoder: nn.Module) -> None:
    """Replace each norm of the encoder by one for each stream, in place; both start as it is."""
    for parent in list(encoder.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, NORMS):
                setattr(parent, name, NormOfEach(child))


def joint_name(name: str) -> str:
    """The name that a parameter of a parted norm had before; any other name as it is."""
    return re.sub(r"\.(rgb|depth)(\.\w+)$", r"\2", name)
