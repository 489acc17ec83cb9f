"""What a configuration may hold: its sections, and what must go together; the rest is refused."""

from pydantic import Field, model_validator

from nyuseg.config.augment import Augment
from nyuseg.config.prediction import Predict, Submission, Tta
from nyuseg.config.sections import Compute, Data, Folds, Model, Train
from nyuseg.config.values import Section

# What may change after training, sections and a key: how it is computed and written, how often.
FREE = ("compute", "tta", "submission", "folds.full")


class Config(Section):
    """The settings of an experiment."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)
    """Its folder below oof/ and submissions/: up to 64 letters, digits, dots, - and _."""

    seed: int = Field(42, ge=0)
    """Everything random is drawn from this number, the fold, the epoch and the image."""

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

    @property
    def training_size(self) -> tuple[int, int]:
        """Height and width of the network's input in training; it predicts at data.size."""
        return self.augment.crop or self.augment.working_size or self.data.size

    @property
    def training_size_key(self) -> str:
        """The key that training_size comes from."""
        for key in ("crop", "working_size"):
            if getattr(self.augment, key):
                return f"augment.{key}"
        return "data.size"

    @model_validator(mode="after")
    def _size_suits_decoder(self) -> "Config":
        # DeepLabV3+ keeps its encoder at stride 16; the others go down to 32.
        stride = 16 if self.model.decoder == "deeplabv3plus" else 32
        sizes = {"data.size": self.data.size, self.training_size_key: self.training_size}
        for key, size in sizes.items():
            if min(size) < 32 or any(n % stride for n in size):
                raise ValueError(f"{key}: {self.model.decoder} needs multiples of {stride}")
        return self

    @model_validator(mode="after")
    def _crop_within_working_size(self) -> "Config":
        crop, working = self.augment.crop, self.augment.working_size
        key, size = ("augment.working_size", working) if working else ("data.size", self.data.size)
        if crop and (crop[0] > size[0] or crop[1] > size[1]):
            raise ValueError(
                f"augment.crop: {crop[0]}x{crop[1]} is larger than {key}={size[0]}x{size[1]}"
            )
        return self

    @model_validator(mode="after")
    def _zoom_and_crop_are_there(self) -> "Config":
        has_depth = self.data.shows_depth or self.model.depth_head
        if self.augment.zoom_depth and not (self.augment.zooms and has_depth):
            raise ValueError(
                "augment.zoom_depth: needs augment.zoom, crop or working_size, and a depth channel "
                "in data.channels or model.depth_head"
            )
        if self.augment.zooms and self.data.xy_channels:
            raise ValueError(
                "data.channels: xy says where a pixel lies in the whole frame; leave it out, or "
                "augment.zoom, crop and working_size"
            )
        if self.augment.rare_crop and not (self.augment.crop or self.augment.zoom):
            raise ValueError("augment.rare_crop: needs augment.crop or zoom, which are not set")
        return self

    @model_validator(mode="after")
    def _depth_to_augment(self) -> "Config":
        for key in ("depth_holes", "depth_noise", "depth_drop"):
            noise = key == "depth_noise"  # The geometry is of what was measured.
            seen = self.data.shows_depth if noise else self.data.uses_depth
            if getattr(self.augment, key) and not seen:
                raise ValueError(f"augment.{key}: needs a channel of the depth in data.channels")
        if self.augment.copy_paste and "depth" not in self.training_kinds:
            raise ValueError(
                "augment.copy_paste: needs depth, for a channel in data.channels or for "
                "model.depth_head"
            )
        return self

    @model_validator(mode="after")
    def _depth_to_fuse(self) -> "Config":
        if self.model.fusion != "early" and not self.data.depth_channels:
            raise ValueError(
                f"model.fusion: {self.model.fusion} needs a channel of the depth in data.channels, "
                "such as inverse_depth"
            )
        if self.model.fusion == "two_stream" and self.data.channel_count != 4:
            raise ValueError(
                "model.fusion: two_stream takes rgb and one channel of the depth, but "
                f"data.channels has {', '.join(self.data.channels)}"
            )
        if self.model.fusion == "two_stream" and self.model.decoder == "dpt":
            raise ValueError(
                "model.fusion: two_stream merges levels of several scales, which model.decoder=dpt "
                "has not; use branch"
            )
        return self

    @model_validator(mode="after")
    def _groups_of_fpn(self) -> "Config":
        if self.model.decoder == "fpn" and self.model.decoder_channels % 64:
            raise ValueError(  # Half of them are normalised in 32 groups.
                f"model.decoder_channels: fpn needs a multiple of 64, not "
                f"{self.model.decoder_channels}"
            )
        return self

    @model_validator(mode="after")
    def _filters_to_part(self) -> "Config":
        if self.model.separable and self.model.decoder == "deeplabv3plus":
            raise ValueError("model.separable: deeplabv3plus is so already; fpn, for one, is not")
        return self

    @model_validator(mode="after")
    def _patches_suit_decoder(self) -> "Config":
        if self.model.patch_size is not None and self.model.decoder != "dpt":
            raise ValueError("model.patch_size: only of the transformers of model.decoder=dpt")
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
    def _mean_within_training(self) -> "Config":
        last, epochs = self.train.mean_last, self.train.epochs
        if last is not None and last > epochs:
            raise ValueError(f"train.mean_last: {last} epochs, but only {epochs} in all")
        return self

    @model_validator(mode="after")
    def _warmup_within_training(self) -> "Config":
        warmup, epochs = self.train.warmup, self.train.epochs
        if warmup >= epochs:
            raise ValueError(f"train.warmup: {warmup:g} epochs, but only {epochs} in all")
        if warmup and self.train.schedule == "epoch_cosine":
            raise ValueError("train.warmup: needs train.schedule=cosine or poly, which go by step")
        return self

    @model_validator(mode="after")
    def _checkpoint_is_made(self) -> "Config":
        kind = self.predict.checkpoint
        for average, key in (("ema", "ema"), ("mean", "mean_last")):
            if kind == average and getattr(self.train, key) is None:
                raise ValueError(f"predict.checkpoint: {kind} needs train.{key}, which is not set")
        return self
