"""Which of an encoder's features a decoder or a head reads."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

# Places in the list of the encoder's features.
READ = {
    "deeplabv3plus": (2, 5),
    "fpn": (2, 3, 4, 5),
    "upernet": (2, 3, 4, 5),
    "unet": (1, 2, 3, 4, 5),
    "dpt": (0, 1, 2, 3),
}


class Level(NamedTuple):
    """A feature map of the encoder: its place in the list, its channels and its stride."""

    place: int
    channels: int
    stride: int


def read_levels(encoder: nn.Module, decoder: str) -> list[Level]:
    """The encoder's features that the decoder reads, of encoders of segmentation-models-pytorch."""
    channels, deepest = encoder.out_channels, encoder.output_stride
    assert isinstance(channels, Sequence) and isinstance(deepest, int)
    # The features of a plain transformer all have one stride, whichever block they come from.
    least = deepest if decoder == "dpt" else 1
    levels = [
        Level(place, channels[place], max(least, min(2**place, deepest))) for place in READ[decoder]
    ]
    return [level for level in levels if level.channels]  # Transformers have none at stride 2.
