"""A network's shapes without its memory, on torch's meta device."""

import torch

from nyuseg.config.sections import Data, Model
from nyuseg.models.network import MultiTaskNet, build_model
from nyuseg.utils.errors import UserError


def build_skeleton(options: Model, data: Data) -> MultiTaskNet:
    """The network of build_model with neither memory nor values. Raises UserError as that does."""
    try:
        with torch.device("meta"):
            network = build_model(options, data, pretrained=False)
    except (UserError, RuntimeError):  # Some encoders compute while they are built.
        network = build_model(options, data, pretrained=False)
    return network.to("meta")  # smp makes the first filters elsewhere.
