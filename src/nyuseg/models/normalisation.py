"""The mean and standard deviation of RGB that an encoder's pretrained weights were trained with."""

from nyuseg.config.schema import Config
from nyuseg.config.sections import Model
from nyuseg.config.values import Colour
from nyuseg.models.records import timm_record
from nyuseg.utils.errors import UserError

# Of smp's own encoders these alone, families by the beginning of their names, have another range.
HALVES = ("inceptionv4", "inceptionresnetv2", "xception")
HALF: tuple[Colour, Colour] = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
IMAGENET: tuple[Colour, Colour] = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Part of the encoder's own range of input by which black or white may be off. Statistics of the
# data instead of ImageNet's, as in Exp060, are off by an eighth; a range of -1 to 1 by a quarter.
TOLERANCE = 0.2


def own_normalisation(options: Model) -> tuple[Colour, Colour]:
    """Mean and standard deviation of red, green and blue, in 0 to 1: timm's record of its encoder.

    ImageNet's for random weights and where there is no record, but for a few of smp's encoders.
    """
    if options.encoder_weights is None:
        return IMAGENET
    if options.encoder.startswith(HALVES):
        return HALF
    facts = timm_record(options.encoder)
    return IMAGENET if facts is None else (_colour(facts.mean), _colour(facts.std))


def resolve_normalisation(config: Config) -> Config:
    """The configuration with numbers for data.mean and data.std where they are null."""
    mean, std = own_normalisation(config.model)
    given = config.data
    data = given.model_copy(update={"mean": given.mean or mean, "std": given.std or std})
    return config.model_copy(update={"data": data})


def normalisation_fault(config: Config) -> str | None:
    """How data.mean and data.std differ clearly from what the weights were trained with; else None.

    Random weights are content with any.
    """
    if config.model.encoder_weights is None:
        return None
    own, given = own_normalisation(config.model), resolve_normalisation(config).data
    assert given.mean is not None and given.std is not None
    for mean, std, own_mean, own_std in zip(given.mean, given.std, *own, strict=True):
        for value in (0, 1):  # Black and white.
            off = (value - mean) / std - (value - own_mean) / own_std
            if abs(off) > TOLERANCE / own_std:
                return (
                    f"data.mean={_text(given.mean)} data.std={_text(given.std)}: the weights of "
                    f"{config.model.encoder} were trained with {_text(own[0])} and {_text(own[1])};"
                    " null takes these"
                )
    return None


def require_normalisation(config: Config) -> None:
    """Raise UserError when timm's own weights are given images of clearly another normalisation.

    A local file may be of another training than timm's: its user knows.
    """
    fault = normalisation_fault(config)
    if fault is not None and config.model.encoder_weights == "imagenet":
        raise UserError(fault)


def _colour(values: tuple[float, ...]) -> Colour:
    red, green, blue = values
    return red, green, blue


def _text(colour: Colour) -> str:
    return "[" + ",".join(f"{value:.4g}" for value in colour) + "]"
