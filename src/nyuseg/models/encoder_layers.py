"""The layers of an encoder, as timm counts them: who learns slower the deeper it lies."""

import timm
import torch
from timm.models import group_parameters
from torch import nn

from nyuseg.models.encoder_weights import own_name
from nyuseg.models.two_stream import joint_name
from nyuseg.utils.errors import UserError


def layer_depths(encoder: nn.Module) -> dict[str, int]:
    """How many layers lie above each parameter of the encoder: 0 in its last layer.

    A layer is a block, and all before the first one together (timm's `group_matcher`). Raises
    UserError for an encoder whose layers timm does not know.
    """
    model = getattr(encoder, "model", None)
    own = {name: joint_name(name) for name, _ in encoder.named_parameters()}
    known = set(own.values())
    layers = {own_name(name, known): layer for name, layer in _layers(encoder, model).items()}
    last = max((layers.get(name, 0) for name in known), default=0)
    if last == 0 or not layers.keys() >= known:
        raise UserError(
            "train.layer_decay: timm knows no layers of this encoder; set it to 1 and use "
            "train.encoder_lr, or an encoder whose name begins with tu-"
        )
    return {name: last - layers[joint] for name, joint in own.items()}


def _layers(encoder: nn.Module, model: nn.Module | None) -> dict[str, int]:
    """Layer by name of parameter, from the input on, of the network that timm itself builds."""
    if model is None:
        return {}
    if not hasattr(model, "group_matcher"):  # Only its features were kept.
        with torch.device("meta"):
            model = timm.create_model(str(encoder.name))
    matcher = getattr(model, "group_matcher", None)
    return dict(group_parameters(model, matcher(coarse=False), reverse=True)) if matcher else {}
