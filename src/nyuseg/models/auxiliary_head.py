"""A second segmentation head that only training has."""

from torch import nn

from nyuseg.data.classes import NUM_CLASSES

# How the names of its weights begin; release weights lack them.
PREFIX = "auxiliary_head."


class AuxiliaryHead(nn.Sequential):
    """Maps an encoder's features before its last, [N,C,h,w], to logits [N,13,h,w].

    They have stride 16, of a plain transformer they are the third of four. So the encoder hears of
    the classes by a shorter way than through the decoder: Zhao et al. 2017, arXiv 1612.01105.
    """

    def __init__(self, channels: int) -> None:
        hidden = max(64, channels // 4)
        super().__init__(
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, NUM_CLASSES, 1),
        )
