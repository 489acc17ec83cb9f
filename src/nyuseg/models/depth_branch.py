"""Depth beside an RGB encoder: a light encoder of its own, whose features are added to those that
the decoder reads."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from nyuseg.config.sections import Data
from nyuseg.models.levels import Level

# Channels at strides 2, 4, 8, 16 and 32: about a tenth of the smallest EfficientNet's work.
WIDTHS = (16, 32, 48, 64, 64)


class DepthBranch(nn.Module):
    """Adds features of the depth to those of an RGB encoder, each level at its stride.

    What is added passes a gate, a factor for each channel that starts at zero: so the network
    starts as the RGB network, whatever its weights are, and takes from the depth what helps. Such a
    gate: Bachlechner et al. 2020, arXiv 2003.04887.
    """

    def __init__(self, data: Data, levels: Sequence[Level]) -> None:
        super().__init__()
        self.places = [level.place for level in levels]
        self.steps = [level.stride.bit_length() - 2 for level in levels]  # Stride 2 is block 0.
        self.codes = [place - 3 for place in data.depth_channels]
        widths = (data.channel_count - 3 + 1, *WIDTHS[: max(self.steps) + 1])
        self.blocks = nn.ModuleList(_block(before, after) for before, after in pairwise(widths))
        self.projections = nn.ModuleList(
            nn.Conv2d(WIDTHS[step], level.channels, 1)
            for step, level in zip(self.steps, levels, strict=True)
        )
        self.gates = nn.ParameterList(torch.zeros(level.channels, 1, 1) for level in levels)

    def no_weight_decay(self) -> set[str]:
        """Names of what train.decay_all=false spares besides vectors, as timm's networks say it."""
        return {f"gates.{number}" for number in range(len(self.gates))}

    def forward(
        self, features: Sequence[torch.Tensor], channels: torch.Tensor
    ) -> list[torch.Tensor]:
        """The encoder's features with those of the depth.

        channels: the input's beyond RGB, [N,C-3,H,W]. Where all depth codes are 0, the depth is
        missing, or at the end of their range: the branch is told so in one more channel.
        """
        # Without a list as index, which would be sent to a GPU, and waited for, in each step.
        codes = torch.stack([channels[:, place] for place in self.codes], 1)
        valid = (codes > 0).any(1, keepdim=True)
        maps = [torch.cat([channels, valid.to(channels.dtype)], 1)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        result = list(features)
        parts = zip(self.places, self.steps, self.projections, self.gates, strict=True)
        for place, step, projection, gate in parts:
            result[place] = result[place] + gate * projection(maps[step + 1])
        return result


def _block(before: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))
