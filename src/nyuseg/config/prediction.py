"""The sections `predict`, `tta` and `submission` of a configuration: what is written, and how."""

from typing import Literal

from pydantic import Field, field_validator

from nyuseg.config.values import Section


class Predict(Section):
    """What of a trained fold predicts."""

    checkpoint: Literal["best", "last", "ema", "mean"] = "best"
    """The best epoch (chosen on the images that it is then scored on), the last one, or an average
    of the weights that train.ema or train.mean_last keeps."""

    balance: float = Field(0, ge=0, le=1)
    """Power of each class's share of the training pixels by which its probability is divided, so
    that rare classes are predicted more often; 0: not at all. Training does not know of it, but
    held-out losses are of what predicts."""


class View(Section):
    """A test-time view: mirrored, scaled or both."""

    flip: bool = False
    """Whether the image is mirrored."""

    scale: float = Field(1, ge=0.25, le=4)
    """Size of the image, as a multiple of the input's."""

    weight: float = Field(1, gt=0)
    """Its weight in the mean over all views."""

    @property
    def name(self) -> str:
        """identity, horizontal_flip, scale_0.75 or scale_0.75_horizontal_flip."""
        parts = [f"scale_{self.scale:g}"] * (self.scale != 1) + ["horizontal_flip"] * self.flip
        return "_".join(parts) or "identity"


class Tta(Section):
    """Test-time augmentation, which --tta switches on."""

    views: tuple[View, ...] = (View(), View(flip=True))
    """What --tta averages over. The first is the image as it is, {}, and alone predicts without
    --tta and out-of-fold."""

    @field_validator("views")
    @classmethod
    def _identity_first(cls, views: tuple[View, ...]) -> tuple[View, ...]:
        names = [view.name for view in views]
        if names[:1] != ["identity"] or len(set(names)) != len(names):
            raise ValueError("the first view must be the identity, {}, and none may occur twice")
        return views


class Submission(Section):
    """How a run-length submission is written."""

    order: Literal["column", "row"] = "column"
    """In which order pixels are numbered."""

    base: int = Field(1, ge=0, le=1)
    """Number of the first pixel."""

    empty: str = ""
    """What stands for a class without a pixel."""
