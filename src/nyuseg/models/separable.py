"""A decoder with depthwise-separable convolutions, as MobileNet's and DeepLabV3+'s are.

A decoder that was made for a ResNet has filters of 3x3 over 256 channels on its finest grid. With
a small encoder those are half of a training step. A filter for each channel by itself, then 1x1
over all of them, is a ninth of the arithmetic (Chollet, Xception, 2017).
"""

from segmentation_models_pytorch.base.initialization import initialize_decoder
from segmentation_models_pytorch.decoders.deeplabv3.decoder import SeparableConv2d
from torch import nn


def part_filters(decoder: nn.Module) -> None:
    """Replace each dense convolution that is wider than a pixel, in place.

    What replaces it starts as smp starts a decoder. Transposed ones, of which DPT has two, stay.
    """
    for parent in list(decoder.modules()):
        for name, conv in list(parent.named_children()):
            if isinstance(conv, nn.Conv2d) and conv.groups == 1 and max(conv.kernel_size) > 1:
                setattr(parent, name, _parted(conv))


def _parted(conv: nn.Conv2d) -> SeparableConv2d:
    parted = SeparableConv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        bias=conv.bias is not None,
    )
    initialize_decoder(parted)
    return parted
