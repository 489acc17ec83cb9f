"""What a configuration may hold: each key, its range and its default; others are refused."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

Channel = Literal["rgb", "inverse_depth", "linear_depth", "log_depth", "xy"]


def _no_other_null(value: object) -> object:
    if str(value).lower() in ("", "nil", "no", "off", "false") or value in ("none", "None", "NONE"):
        raise ValueError("for none, write null")
    return value


TextOrNull = Annotated[str | None, BeforeValidator(_no_other_null)]


def _width(channel: str) -> int:
    return {"rgb": 3, "xy": 2}.get(channel, 1)


class Section(BaseModel):
    """A part of the configuration; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _unit(value: object) -> object:
    """A word or a positive number; one message for everything else."""
    try:
        number = 1.0 if value in ("mm", "sunrgbd") else float(str(value))
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise ValueError("must be mm, sunrgbd or a positive number of millimetres a step")
    return value if value in ("mm", "sunrgbd") else number


DepthUnit = Annotated[Literal["mm", "sunrgbd"] | float, BeforeValidator(_unit)]


class Data(Section):
    """What a network sees of a frame.

    size: height and width of the network's input; a frame is fitted into it with its aspect ratio
    kept. mean, std: of RGB in 0..1 (default: ImageNet's, as torchvision documents them).

    depth_unit: what depth files count: mm, sunrgbd (its rotated bits), or millimetres a step.
    depth_missing: stored numbers that mean a missing depth, besides 0.
    """

    size: tuple[int, int] = (480, 640)
    channels: tuple[Channel, ...] = ("rgb", "inverse_depth")
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    depth_unit: DepthUnit = "mm"
    depth_missing: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = ()

    @field_validator("size")
    @classmethod
    def _divisible(cls, size: tuple[int, int]) -> tuple[int, int]:
        if min(size) < 32 or size[0] % 16 or size[1] % 16:
            raise ValueError("height and width must be multiples of 16, at least 32")
        return size

    @field_validator("std")
    @classmethod
    def _positive(cls, std: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(std) <= 0:
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
        return not {*self.channels} <= {"rgb", "xy"}

    @property
    def xy_channels(self) -> slice | None:
        """Where the two coordinate channels lie among the input channels; None without them."""
        if "xy" not in self.channels:
            return None
        start = sum(_width(channel) for channel in self.channels[: self.channels.index("xy")])
        return slice(start, start + 2)


class Model(Section):
    """Architecture. encoder_weights: imagenet, the path of a local file, or null (random)."""

    decoder: Literal["deeplabv3plus", "fpn", "upernet", "unet"] = "deeplabv3plus"
    encoder: str = "resnet101"
    encoder_weights: TextOrNull = "imagenet"
    input_init: Literal["smp", "zeros", "mean"] = "smp"
    depth_head: bool = True


class Augment(Section):
    """Random geometry, the same for image, depth and label. Fractions of the size; degrees."""

    flip: float = Field(0.5, ge=0, le=1)
    shift: float = Field(0.05, ge=0, lt=1)
    scale: float = Field(0.1, ge=0, lt=1)
    rotate: float = Field(5, ge=0, le=180)


class Train(Section):
    """Optimisation: AdamW with cosine annealing to zero, over `epochs`, stepped by epoch.

    ema: decay of an exponential moving average of the weights, such as 0.999; mean_last: so many
    last epochs whose weights are averaged; null: none. Neither changes the training;
    both are scored beside the best and the last epoch.
    """

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(8, ge=2)
    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    depth_loss: float = Field(0.1, ge=0)
    ema: float | None = Field(None, gt=0, lt=1)
    mean_last: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _mean_within_training(self) -> "Train":
        if (self.mean_last or 0) > self.epochs:
            raise ValueError(f"mean_last: {self.mean_last} epochs, but only {self.epochs} in all")
        return self


class Folds(Section):
    """How training images are split. group: scene, or random (leaks; only to compare)."""

    count: int = Field(5, ge=2)
    group: Literal["scene", "random"] = "scene"


class View(Section):
    """A test-time view: mirrored, scaled or both, and its weight in the mean of all."""

    flip: bool = False
    scale: float = Field(1, ge=0.25, le=4)
    weight: float = Field(1, gt=0)

    @property
    def name(self) -> str:
        """identity, horizontal_flip, scale_0.75 or scale_0.75_horizontal_flip."""
        parts = [f"scale_{self.scale:g}"] * (self.scale != 1) + ["horizontal_flip"] * self.flip
        return "_".join(parts) or "identity"


class Predict(Section):
    """Which checkpoint of a fold predicts.

    checkpoint: the best epoch (chosen on the images that it is then scored on), the last one, or
    an average of the weights, ema or mean, that `train` must have switched on.
    """

    checkpoint: Literal["best", "last", "ema", "mean"] = "best"


class Compute(Section):
    """How it is computed. The result stays the same, up to rounding; it may change between runs.

    workers: processes that read and augment, as many as fit into the shared memory; null: up to 8
    beside a GPU, none without one, where they would only take the cores from the network.
    precision: see device.autocast_dtype.

    For small GPUs: accumulate computes a batch in so many parts and adds up their gradients (the
    same step, but BatchNorm sees a part at a time); checkpointing forgets activations and computes
    them again (the same step, a third slower). compile: torch.compile of the training step.

    cache: where training frames are kept decoded: auto (.cache below the experiments' folder),
    another folder, or null (read the PNG files in each epoch). The pictures are the same.

    predict_batch_size: views of an image count like images; null is 16 on a GPU and one image, in
    all its views, on a processor, which takes several batches side by side. What does not fit into
    the memory is halved.
    """

    workers: int | None = Field(None, ge=0)
    precision: Literal["auto", "fp32"] = "auto"
    accumulate: int = Field(1, ge=1)
    checkpointing: bool = False
    compile: bool = False
    cache: TextOrNull = "auto"
    predict_batch_size: int | None = Field(None, ge=1)


class Tta(Section):
    """Test-time augmentation.

    views: what --tta averages over; without it, and out-of-fold, there is the first one alone.
    """

    views: tuple[View, ...] = (View(), View(flip=True))

    @field_validator("views")
    @classmethod
    def _identity_first(cls, views: tuple[View, ...]) -> tuple[View, ...]:
        names = [view.name for view in views]
        if names[:1] != ["identity"] or len(set(names)) != len(names):
            raise ValueError("the first view must be the identity, {}, and none may occur twice")
        return views


class Submission(Section):
    """Run-length text: pixel order, number of the first pixel, what stands for 'no pixel'."""

    order: Literal["column", "row"] = "column"
    base: int = Field(1, ge=0, le=1)
    empty: str = ""


# Sections that may change after training: they say how it is computed, shown or written, not what.
FREE = ("compute", "tta", "submission")


class Config(Section):
    """An experiment. `name` is its folder below oof/ and submissions/."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)
    seed: int = Field(42, ge=0)
    data: Data = Data()
    model: Model = Model()
    augment: Augment = Augment()
    train: Train = Train()
    folds: Folds = Folds()
    predict: Predict = Predict()
    compute: Compute = Compute()
    tta: Tta = Tta()
    submission: Submission = Submission()

    @property
    def training_kinds(self) -> tuple[str, ...]:
        """What of a frame training reads; a depth head is scored on depth, whatever its loss."""
        depth = self.model.depth_head or self.data.uses_depth
        return ("image", "depth", "label") if depth else ("image", "label")

    @model_validator(mode="after")
    def _size_suits_decoder(self) -> "Config":
        # DeepLabV3+ keeps its encoder at stride 16; the others go down to 32.
        if self.model.decoder != "deeplabv3plus" and any(n % 32 for n in self.data.size):
            raise ValueError(f"data.size: {self.model.decoder} needs multiples of 32")
        return self

    @model_validator(mode="after")
    def _parts_of_two(self) -> "Config":
        batch, parts = self.train.batch_size, self.compute.accumulate
        if batch % parts or batch // parts < 2:
            raise ValueError(
                f"compute.accumulate: train.batch_size={batch} images cannot be {parts} equal "
                "parts of two or more"
            )
        return self

    @model_validator(mode="after")
    def _checkpoint_is_made(self) -> "Config":
        kind = self.predict.checkpoint
        for average, key in (("ema", "ema"), ("mean", "mean_last")):
            if kind == average and getattr(self.train, key) is None:
                raise ValueError(f"predict.checkpoint: {kind} needs train.{key}, which is not set")
        return self
