"""The configuration of an experiment: one YAML file, one parent at most, unknown keys refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from nyuseg.errors import UserError

FREE = {
    *("train.workers", "train.cache", "train.checkpointing", "train.compile"),
    "predict.batch_size",
}
Channel = Literal["rgb", "inverse_depth", "linear_depth", "log_depth", "xy"]


def _width(channel: str) -> int:
    return {"rgb": 3, "xy": 2}.get(channel, 1)


class Section(BaseModel):
    """A part of the configuration; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """What a network sees of a frame.

    size: height and width of the network's input; a frame is fitted into it with its aspect ratio
    kept. mean, std: of RGB in 0..1 (default: ImageNet's, as torchvision documents them).
    """

    size: tuple[int, int] = (480, 640)
    channels: tuple[Channel, ...] = ("rgb", "inverse_depth")
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

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
    encoder_weights: str | None = "imagenet"
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

    workers: processes that read and augment; null: up to 8 beside a GPU, none without one, where
    they would only take the cores from the network. precision: see device.autocast_dtype.

    For small GPUs: accumulate computes a batch in so many parts and adds up their gradients (the
    same step, but BatchNorm sees a part at a time); checkpointing forgets activations and computes
    them again (the same step, a third slower). compile: torch.compile of the training step.

    cache: where training frames are kept decoded: auto (.cache below the experiments' folder),
    another folder, or null (read the PNG files in each epoch). The pictures are the same.

    ema: decay of an exponential moving average of the weights, such as 0.999; mean_last: so many
    last epochs whose weights are averaged; null: none. Neither changes the training, see averaging;
    both are scored beside the best and the last epoch.
    """

    epochs: int = Field(30, ge=1)
    batch_size: int = Field(8, ge=2)
    lr: float = Field(1e-4, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    depth_loss: float = Field(0.1, ge=0)
    workers: int | None = Field(None, ge=0)
    precision: Literal["auto", "fp32"] = "auto"
    accumulate: int = Field(1, ge=1)
    checkpointing: bool = False
    compile: bool = False
    cache: str | None = "auto"
    ema: float | None = Field(None, gt=0, lt=1)
    mean_last: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _parts_of_two(self) -> "Train":
        if self.batch_size % self.accumulate or self.batch_size // self.accumulate < 2:
            raise ValueError(
                f"accumulate: {self.batch_size} images cannot be {self.accumulate} equal parts of "
                "two or more"
            )
        return self

    @model_validator(mode="after")
    def _mean_within_training(self) -> "Train":
        if (self.mean_last or 0) > self.epochs:
            raise ValueError(f"mean_last: {self.mean_last} epochs, but only {self.epochs} in all")
        return self


class Folds(Section):
    """How training images are split. group: scene, or random (leaks; only to compare)."""

    count: int = Field(5, ge=2)
    group: Literal["scene", "random"] = "scene"


class Predict(Section):
    """Which checkpoint of a fold predicts, and how many images go through a network at once.

    checkpoint: the best epoch (chosen on the images that it is then scored on), the last one, or
    an average of the weights, ema or mean, that `train` must have switched on.

    batch_size: views of an image count like images; null is 16 on a GPU and 2 on a processor,
    which takes several batches side by side. What does not fit into the memory is halved.
    """

    checkpoint: Literal["best", "last", "ema", "mean"] = "best"
    batch_size: int | None = Field(None, ge=1)


class Submission(Section):
    """Run-length text: pixel order, number of the first pixel, what stands for 'no pixel'."""

    # YAML reads the empty tokens -1 and 0 as numbers.
    model_config = ConfigDict(coerce_numbers_to_str=True)

    order: Literal["column", "row"] = "column"
    base: Literal[0, 1] = 1
    empty: str = ""


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
    submission: Submission = Submission()

    @model_validator(mode="after")
    def _size_suits_decoder(self) -> "Config":
        # DeepLabV3+ keeps its encoder at stride 16; the others go down to 32.
        if self.model.decoder != "deeplabv3plus" and any(n % 32 for n in self.data.size):
            raise ValueError(f"data.size: {self.model.decoder} needs multiples of 32")
        return self

    @model_validator(mode="after")
    def _checkpoint_is_made(self) -> "Config":
        kind = self.predict.checkpoint
        for average, key in (("ema", "ema"), ("mean", "mean_last")):
            if kind == average and getattr(self.train, key) is None:
                raise ValueError(f"predict.checkpoint: {kind} needs train.{key}, which is not set")
        return self


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, lay it over its `extends:` parent, apply `a.b=c` overrides, validate.

    Raises UserError, one line with file and key, for an absent file, broken YAML, an unknown
    key, a wrong type or a value out of range.
    """
    values = _read_yaml(path)
    parent = values.pop("extends", None)
    if parent is not None:
        base = _read_yaml(path.parent / str(parent))
        if "extends" in base:
            raise UserError(f"{path.parent / str(parent)}: a parent cannot extend another file")
        values = _merge(base, values)
    for override in overrides:
        values = _merge(values, _parse_override(override))
    return parse_config(values, str(path))


def override_config(config: Config, overrides: Sequence[str]) -> Config:
    """Change what may still change after training (see is_free). Raises UserError otherwise."""
    values = config.model_dump(mode="json")
    for override in overrides:
        key = override.partition("=")[0]
        if not is_free(key):
            raise UserError(f"--set {override}: {key} is fixed by the training; train again")
        values = _merge(values, _parse_override(override))
    return parse_config(values, "--set")


def is_free(key: str) -> bool:
    """Whether a setting changes only where, how fast or in what format, not what is predicted."""
    return key in FREE or key.startswith("submission.")


def parse_config(values: dict[str, Any], source: str) -> Config:
    """Validate plain values; `source` names them in the error. Raises UserError."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        where = f"{key}: " if key else ""
        raise UserError(f"{source}: {where}{message} (given: {first['input']!r:.80})") from None


def dump_config(config: Config) -> str:
    """The whole configuration as YAML; parse_config reads it back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except OSError:
        raise UserError(f"{path}: no such configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values")
    return values


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"--set {text}: expected KEY=VALUE, such as train.epochs=1")
    if not value:
        raise UserError(f"--set {text}: the value is empty; write {key}=null or {key}=''")
    try:
        # A lone dash is a token of some competitions; YAML would read a list.
        result: Any = value if value == "-" else yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {text}: the value is not valid YAML") from None
    for part in reversed(key.split(".")):
        result = {part: result}
    return result


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merge(result[key], value) if both else value
    return result
