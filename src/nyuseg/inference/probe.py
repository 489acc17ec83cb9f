"""Whether a network can work at all, asked of network and machine before any data is read."""

import os
from collections.abc import Sequence
from typing import get_args

import torch

from nyuseg.config.prediction import View
from nyuseg.config.schema import Config
from nyuseg.config.sections import Model
from nyuseg.inference.tta import scaled_size
from nyuseg.models.device import pick_devices, require_compiler
from nyuseg.models.encoder_layers import layer_depths
from nyuseg.models.network import network_fault
from nyuseg.models.normalisation import require_normalisation
from nyuseg.models.skeleton import build_skeleton
from nyuseg.utils.errors import UserError

# How timm and segmentation-models-pytorch say that there is no such encoder.
UNKNOWN = ("Unknown model", "Wrong encoder name")
DECODERS = get_args(Model.model_fields["decoder"].annotation)


def require_possible(config: Config) -> None:
    """Raise UserError when this configuration can be trained on no data, on this machine."""
    require_network(config)
    require_normalisation(config)
    if config.train.layer_decay != 1:
        _require_layers(config)
    if config.compute.compile:
        devices = pick_devices()  # One that is another process's is left alone.
        require_compiler(devices[int(os.environ.get("LOCAL_RANK", "0")) % len(devices)])


def require_network(config: Config) -> None:
    """Raise UserError when encoder, decoder and size of input do not go together, or a view.

    The line says which decoders would do.
    """
    reason = network_fault(config.model, config.data)
    if reason is None:
        _require_training_size(config)
        require_views(config, config.tta.views)
        return
    if reason.startswith(UNKNOWN):
        raise UserError(
            f"model.encoder: {config.model.encoder} is unknown; any encoder of "
            "segmentation-models-pytorch will do, or tu- and the name of a model of timm"
        )
    _blame_option(config, reason)
    height, width = config.data.size
    others = {
        name: config.model.model_copy(update={"decoder": name, "patch_size": None})
        for name in DECODERS
    }
    usable = [name for name in others if network_fault(others[name], config.data) is None]
    advice = f"use model.decoder={' or '.join(usable)}" if usable else "use another"
    raise UserError(
        f"model.encoder: {config.model.encoder} does not work with model.decoder="
        f"{config.model.decoder} at data.size=[{height},{width}] ({reason}); {advice}"
        + (", or another encoder" if usable else " encoder or data.size")
    )


def _require_layers(config: Config) -> None:
    with torch.random.fork_rng(devices=[]):
        layer_depths(build_skeleton(config.model, config.data).encoder)


def _blame_option(config: Config, reason: str) -> None:
    """Raise UserError when another value of one of the encoder's options would do."""
    model = config.model
    others = [("drop_path", None), ("patch_size", None), ("patch_size", 16)]
    for key, value in others:
        other = model.model_copy(update={key: value})
        possible = key == "drop_path" or model.decoder == "dpt"
        if possible and other != model and network_fault(other, config.data) is None:
            now, then = ("null" if one is None else one for one in (getattr(model, key), value))
            raise UserError(
                f"model.{key}: {now} does not suit {model.encoder} with model.decoder="
                f"{model.decoder} ({reason}); set model.{key}={then}"
            )


def _require_training_size(config: Config) -> None:
    if config.training_size == config.data.size:
        return
    reason = network_fault(config.model, config.data, config.training_size)
    if reason is not None:
        height, width = config.training_size
        raise UserError(
            f"{config.training_size_key}: {config.model.encoder} takes no training input of "
            f"{height}x{width} beside data.size=[{config.data.size[0]},{config.data.size[1]}] "
            f"({reason}); use one size for both, or another encoder"
        )


def require_views(config: Config, views: Sequence[View]) -> None:
    """Raise UserError for a scaled view that the network cannot take."""
    for view in views:
        size = scaled_size(view, config.data.size)
        reason = network_fault(config.model, config.data, size) if view.scale != 1 else None
        if reason is not None:
            raise UserError(
                f"tta.views: {config.model.encoder} takes no input of {size[0]}x{size[1]}, "
                f"which the scale {view.scale:g} makes of it ({reason}); leave this scale out"
            )
