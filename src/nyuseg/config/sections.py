"""The sections of a configuration: each key, its range, its default and a line about it.

That of augmentation has a module of its own, augment.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from nyuseg.config.values import GEOMETRY, Channel, Colour, DepthUnit, Section, TextOrNull


def _width(channel: str) -> int:
    return {"rgb": 3, "slopes": 2, "xy": 2}.get(channel, 1)


class Data(Section):
    """What a network sees of a frame."""

    size: tuple[int, int] = (480, 640)
    """Height and width of the network's input: multiples of 16, at least 32; of 32 unless the
    decoder is deeplabv3plus. A frame is fitted into it, with its aspect ratio kept. Training has
    another size where augment.working_size or augment.crop gives one."""

    channels: tuple[Channel, ...] = ("rgb", "inverse_depth")
    """Input channels, rgb first. slopes: how the surface leans to the right and downwards, by the
    depth and a Kinect's field of view. height: above the lowest point that the whole frame shows,
    -1 there and 1 from 3 m on; upward: how far the surface faces upwards, 1 for a floor, -1 for a
    ceiling; for both, gravity is found by the walls and the floor, for a Kinect held within 45
    degrees of level, and 0 is missing, too, so that a depth belongs beside them. xy: the pixel's
    two coordinates, 0 to 1."""

    mean: Colour | None = None
    """Mean of red, green and blue, in 0 to 1. null: what the encoder's pretrained weights were
    trained with, by timm's record; ImageNet's without such weights or record. Training keeps the
    numbers."""

    std: Colour | None = None
    """Standard deviation of red, green and blue, above 0. null: like data.mean."""

    depth_unit: DepthUnit = "mm"
    """What depth files count: millimetres, SUN RGB-D's rotated bits, or so many millimetres a
    step."""

    depth_missing: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()
    """Stored numbers that mean a missing depth, besides 0."""

    @field_validator("size")
    @classmethod
    def _divisible(cls, size: tuple[int, int]) -> tuple[int, int]:
        if min(size) < 32 or size[0] % 16 or size[1] % 16:
            raise ValueError("height and width must be multiples of 16, at least 32")
        return size

    @field_validator("std")
    @classmethod
    def _positive(cls, std: Colour | None) -> Colour | None:
        if std is not None and min(std) <= 0:
            raise ValueError("must be above 0")
        return std

    @field_validator("channels")
    @classmethod
    def _rgb_first(cls, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        if not channels or channels[0] != "rgb" or len(set(channels)) != len(channels):
            raise ValueError("the first channel must be rgb and none may occur twice")
        return channels

    @property
    def channel_count(self) -> int:
        """Number of input channels C of the network."""
        return sum(_width(channel) for channel in self.channels)

    @property
    def uses_depth(self) -> bool:
        """Whether a channel is made of the depth."""
        return any(one not in ("rgb", "xy") for one in self.channels)

    @property
    def shows_depth(self) -> bool:
        """Whether a channel changes where the depth does, and not only where it is missing."""
        return any(one not in ("rgb", "xy", *GEOMETRY) for one in self.channels)

    @property
    def frame_kinds(self) -> tuple[str, ...]:
        """What of a frame the channels are made of: image, perhaps depth, and of GEOMETRY."""
        files = ("image", "depth")[: 1 + self.uses_depth]
        return files + tuple(one for one in GEOMETRY if one in self.channels)

    @property
    def depth_channels(self) -> tuple[int, ...]:
        """Where the channels that are codes of the depth lie among the input channels."""
        return tuple(self._start(one) for one in self.channels if one.endswith("_depth"))

    @property
    def xy_channels(self) -> slice | None:
        """Where the two coordinate channels lie among the input channels; None without them."""
        if "xy" not in self.channels:
            return None
        start = self._start("xy")
        return slice(start, start + 2)

    @property
    def negated_channels(self) -> tuple[int, ...]:
        """Where those lie that change their sign in a mirror: the slope to the right."""
        return (self._start("slopes"),) if "slopes" in self.channels else ()

    def _start(self, channel: Channel) -> int:
        return sum(_width(one) for one in self.channels[: self.channels.index(channel)])


class Model(Section):
    """The architecture, and the weights it starts from."""

    decoder: Literal["deeplabv3plus", "fpn", "upernet", "unet", "dpt"] = "deeplabv3plus"
    """A decoder of segmentation-models-pytorch; dpt is the one for plain vision transformers."""

    decoder_channels: int = Field(256, ge=16, multiple_of=16)
    """Width of the decoder: its number of channels, of unet at its deepest level. fpn wants a
    multiple of 64. A small encoder needs fewer than the usual 256."""

    separable: bool = False
    """Whether the decoder's dense 3x3 convolutions become depthwise-separable ones, as those of
    deeplabv3plus are: a ninth of the arithmetic, which is half of a training step where the encoder
    is small."""

    encoder: str = "resnet101"
    """Any encoder of segmentation-models-pytorch, or tu- and the name of a model of timm."""

    patch_size: int | None = Field(None, ge=1)
    """Pixels along a side of a vision transformer's patches, to which its pretrained ones are
    resampled: 16 for an encoder of 14, which dpt does not take. null: the encoder's own."""

    drop_path: float | None = Field(None, ge=0, lt=1)
    """Largest probability, in the encoder's last block, that a block is passed over in training
    (stochastic depth). null: as timm builds the encoder, for nearly all 0."""

    encoder_weights: TextOrNull = "imagenet"
    """Weights that the encoder starts from: imagenet (timm's: those that the name means, of
    whatever data), the path of a local file, or null for random ones."""

    input_init: Literal["smp", "zeros", "mean"] = "smp"
    """First filters of the channels beyond RGB: the RGB filters in turn, all scaled by 3/channels
    (smp), zeros, or the mean of the RGB filters. Only model.fusion=early has such channels."""

    fusion: Literal["early", "branch", "two_stream"] = "early"
    """How the channels beyond RGB enter: by the encoder's input (early); by a light encoder of
    their own, whose features are added to what the decoder reads, through a gate that starts at
    zero (branch); or one, of the depth, by the same encoder as the image, gates merging the two at
    each level (two_stream)."""

    depth_head: bool = True
    """Whether a second head predicts the depth."""


class Train(Section):
    """Optimisation: AdamW, whose learning rate falls to zero."""

    epochs: int = Field(30, ge=1)
    """Passes over the training images."""

    batch_size: int = Field(8, ge=2)
    """Images in a step of the optimizer."""

    lr: float = Field(1e-4, gt=0)
    """Largest learning rate."""

    schedule: Literal["epoch_cosine", "cosine", "poly"] = "epoch_cosine"
    """How the learning rate falls: along a cosine, constant within an epoch as in the report
    (epoch_cosine) or at every step (cosine), or at every step as a polynomial of power 0.9 (poly).
    """

    warmup: float = Field(0, ge=0)
    """Epochs, or a part of one, in which the learning rate first rises from zero, step by step."""

    encoder_lr: float = Field(1, gt=0)
    """Learning rate of the encoder, as a multiple of that of the rest."""

    layer_decay: float = Field(1, gt=0, le=1)
    """Learning rate of each layer of the encoder, as a multiple of that of the layer above it. A
    layer is a block, of which ConvNeXt-L has 36 and a ViT-L 24; the last one has encoder_lr."""

    weight_decay: float = Field(1e-4, ge=0)
    """AdamW's weight decay."""

    decay_all: bool = True
    """Whether the weight decay also acts on biases, the vectors of norms, and tokens; otherwise on
    filters and matrices alone."""

    clip_norm: float | None = Field(None, gt=0)
    """Length to which the gradient of a step is shortened when it is longer; null: never."""

    label_smoothing: float = Field(0, ge=0, lt=1)
    """Share of each pixel's target that is spread evenly over the classes."""

    class_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        None, min_length=13, max_length=13
    )
    """How much a pixel of each of the 13 classes counts in the cross entropy; null: all the same.
    """

    @field_validator("class_weights")
    @classmethod
    def _some_class_counts(cls, weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if weights is not None and not any(weights):
            raise ValueError("no class counts; one must be above 0")
        return weights

    boundary_weight: float = Field(1, ge=0)
    """How much a pixel with another class beside it counts in the cross entropy, as a multiple."""

    lovasz: float = Field(0, ge=0)
    """Weight of the Lovasz-Softmax loss, which follows the mIoU, beside the cross entropy; of the
    pixels in every fourth row and column, since it sorts them for each class. Each part of
    compute.accumulate has its own."""

    dice: float = Field(0, ge=0)
    """Weight of the Dice loss beside the cross entropy. Each part of compute.accumulate has its
    own."""

    soft_iou: float = Field(0, ge=0)
    """Weight of 1 - IoU of the probabilities beside the cross entropy, as in the report's Exp061.
    Each part of compute.accumulate has its own."""

    aux_loss: float = Field(0, ge=0)
    """Weight of the cross entropy of a second, small head on the encoder's features of stride 16
    (of a plain transformer: its third of four), such as 0.4; 0: none. Only training has it."""

    depth_loss: float = Field(0.1, ge=0)
    """Weight of the depth's loss beside that of the segmentation."""

    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, such as 0.999; null: none is kept. It
    does not change the training, and is scored beside the best and the last epoch."""

    mean_last: int | None = Field(None, ge=1)
    """Number of last epochs whose weights are averaged; null: none. Like ema, beside the training.
    """


class Folds(Section):
    """How the training images are split."""

    count: int = Field(5, ge=2)
    """Number of folds."""

    group: Literal["scene", "random"] = "scene"
    """What stays in one fold: a scene, or nothing (random), which leaks and is only there to
    compare."""

    full: int = Field(3, ge=1, le=1000)
    """Number of networks that --fold full trains on all images, once all folds are finished. They
    differ in their random numbers alone."""


class Compute(Section):
    """How it is computed. Only accumulate changes the result by more than rounding."""

    workers: int | None = Field(None, ge=0)
    """Processes that read and augment, fewer where the shared memory is small. null: up to 8 beside
    a GPU, none without one, where they would only take the cores from the network."""

    precision: Literal["auto", "fp32"] = "auto"
    """Of matrix products. auto: bfloat16 where it is fast, float16 on older GPUs, else float32."""

    accumulate: int = Field(1, ge=1)
    """Number of equal parts, each of two images or more, that a batch is computed in: less memory,
    the same step, except that BatchNorm and the losses over regions (lovasz, dice, soft_iou) see a
    part at a time. Parts of two images are too small for deeplabv3plus and upernet, which pool an
    image to one pixel: normalised over two of them, that branch learns nothing."""

    checkpointing: bool = False
    """Whether activations are forgotten and computed again: less memory, the same step, a third
    slower."""

    compile: bool = False
    """Whether torch.compile compiles the training step; needs a C++ compiler."""

    cache: TextOrNull = "auto"
    """Where the decoded training frames are kept: auto (.cache below the experiments' folder),
    another folder, or null (the PNG files are read in each epoch)."""

    predict_batch_size: int | None = Field(None, ge=1)
    """Images predicted at once, each view counting as one; halved when they do not fit. null: 16 on
    a GPU, one image in all its views on a processor."""

    tensorboard: int | None = Field(None, ge=1)
    """Epochs from one picture of held-out predictions to the next in TensorBoard's files,
    oof/<name>/fold_<k>/tensorboard, which also have the scores of each epoch; null: no such files.
    Needs pip install -e '.[tensorboard]'."""
