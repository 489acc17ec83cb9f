"""Depthwise convolutions that PyTorch's CPU library trains slowly in bfloat16, in float32.

With kernels above 3, a stride or an encoder's dilation, the library's backward pass takes two to
seven times as long in bfloat16 as in float32, and is most of a training step of an EfficientNet or
a ConvNeXt. The way to float32 and back costs far less, and only rounds less.
"""

from typing import Any

import torch
from torch import nn

from nyuseg.models.atrous import WIDE


class InFloat32(nn.Conv2d):
    """Takes and gives bfloat16 under autocast on a processor, computing in float32, if it trains.

    Everywhere else: the convolution as it is.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if not half or not torch.is_grad_enabled():
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(torch.get_autocast_dtype("cpu"))


def use_float32(network: nn.Module) -> None:
    """Let each such convolution of a network compute in float32, in place; see InFloat32.

    Names and weights stay, and so does what the library's own kinds of convolution do besides.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and _is_slow(module):
            module.__class__ = _in_float32(type(module))


def _in_float32(kind: type[nn.Conv2d]) -> Any:
    return InFloat32 if kind is nn.Conv2d else type(kind.__name__, (InFloat32, kind), {})


def _is_slow(conv: nn.Conv2d) -> bool:
    depthwise = conv.groups == conv.in_channels == conv.out_channels > 1
    dilated = 1 < max(conv.dilation) < WIDE
    return depthwise and (max(conv.kernel_size) > 3 or max(conv.stride) > 1 or dilated)
