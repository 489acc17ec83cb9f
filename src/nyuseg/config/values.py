"""What the keys of a configuration are made of: a section, kinds of values; the one stride."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# Stride of the decoder's grid: logits and probabilities are a quarter of the input's size.
STRIDE = 4

Channel = Literal[
    "rgb", "inverse_depth", "linear_depth", "log_depth", "slopes", "height", "upward", "xy"
]
# Channels that are made of the depth of the whole frame, before it is fitted or cropped.
GEOMETRY = ("height", "upward")
Colour = tuple[float, float, float]


class Section(BaseModel):
    """A part of the configuration; an unknown key is an error.

    The text below each key is its line in docs/config.md, see reference.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def _no_other_null(value: object) -> object:
    if str(value).lower() in ("", "nil", "no", "off", "false") or value in ("none", "None", "NONE"):
        raise ValueError("for none, write null")
    return value


def _unit(value: object) -> object:
    """A word or a positive number; one message for everything else."""
    try:
        number = 1.0 if value in ("mm", "sunrgbd") else float(str(value))
    except ValueError:
        number = -1.0
    if isinstance(value, bool) or not 0 < number < float("inf"):
        raise ValueError("must be mm, sunrgbd or a positive number of millimetres a step")
    return value if value in ("mm", "sunrgbd") else number


TextOrNull = Annotated[str | None, BeforeValidator(_no_other_null)]
DepthUnit = Annotated[
    Literal["mm", "sunrgbd"] | Annotated[float, Field(gt=0)], BeforeValidator(_unit)
]
