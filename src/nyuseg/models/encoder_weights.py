"""Weights of an encoder: a local file, RGB filters for more channels, a failed download."""

import re
import sys
from collections.abc import Collection
from itertools import islice
from pathlib import Path

import torch
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError
from torch import nn

from nyuseg.models.tensors import read_tensors
from nyuseg.utils.errors import UserError, first_line
from nyuseg.utils.files import DISK_FULL


def download_fault(error: Exception) -> str:
    """Why pretrained weights did not come, and what would help."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return "do not fit on the disk; make room, or set HF_HOME to a folder on another disk"
    if isinstance(error, OSError) and error.filename:
        return (
            f"cannot be kept in {error.filename} ({error.strerror}); set HF_HOME to a folder that "
            "can be written"
        )
    absent = isinstance(error, RepositoryNotFoundError | EntryNotFoundError)
    if absent and not isinstance(error, LocalEntryNotFoundError):  # That one: not in the cache.
        return "are not where the library looks for them; update timm"
    if isinstance(error, OSError):
        return "cannot be downloaded; connect to the internet once"
    return f"cannot be had ({fault_reason(error)}); choose another encoder"


def fault_reason(error: Exception) -> str:
    """What an error of a library says, in one line of at most 120 characters."""
    text = " ".join(str(error).strip("\"'").split())
    return f"{text:.120}" if text else type(error).__name__


def expand_input(rgb: torch.Tensor, channels: int, init: str) -> torch.Tensor:
    """Filters for more input channels from RGB filters: [K,3,h,w] to [K,channels,h,w].

    init: `smp` lays R, G, B over the channels in turn and scales all by 3/channels, so that the
    response keeps its size; `zeros` keeps RGB and starts the others at 0; `mean` keeps RGB and
    starts the others at the mean of the RGB filters.
    """
    extra = channels - 3
    if init == "smp":
        turn = torch.arange(channels) % 3
        return rgb[:, turn] * (3 / channels)
    fill = rgb.mean(1, keepdim=True) if init == "mean" else torch.zeros_like(rgb[:, :1])
    return torch.cat([rgb, fill.expand(-1, extra, -1, -1)], 1).contiguous()


def input_filters(encoder: nn.Module) -> list[str]:
    """Names of the encoder's filters over the input's channels; empty if it has no such
    convolution.

    timm records them, since they need not be first in the order of modules, nor one alone.
    """
    facts = getattr(getattr(encoder, "model", None), "pretrained_cfg", None) or {}
    named = facts.get("first_conv") or ()
    own = {name for name, tensor in encoder.named_parameters() if tensor.ndim == 4}
    names = (named,) if isinstance(named, str) else named
    found = [name for name in (own_name(f"{one}.weight", own) for one in names) if name in own]
    convolutions = (n for n, module in encoder.named_modules() if isinstance(module, nn.Conv2d))
    return found or [f"{name}.weight" for name in islice(convolutions, 1)]


def spread_input(encoder: nn.Module, channels: int, init: str) -> None:
    """Make the filters of all input channels from those of RGB, which a library has spread.

    smp and timm both lay the RGB filters over the channels in turn and scale them by 3/C. init: see
    expand_input. Raises UserError for filters that do not see one channel each.
    """
    if channels == 3:
        return
    filters = [encoder.get_parameter(name) for name in input_filters(encoder)]
    if not filters or any(one.shape[1] != channels for one in filters):
        raise UserError(
            "data.channels: pretrained filters of this encoder cannot be spread over channels "
            "beyond RGB; use another encoder, or data.channels=[rgb]"
        )
    for one in filters:
        one.data = expand_input(one.data[:, :3] * (channels / 3), channels, init)


def load_encoder(encoder: nn.Module, path: Path, init: str) -> None:
    """Load a local file of encoder weights (safetensors, or a PyTorch file of plain tensors).

    init: see expand_input. Raises UserError for a file that is unreadable, or for another encoder.
    """
    try:
        if path.suffix == ".safetensors":
            state = read_tensors(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(f"model.encoder_weights: {path}: {first_line(error)}") from None
    except Exception as error:  # pickle.UnpicklingError: anything but plain tensors is refused.
        raise UserError(
            f"model.encoder_weights: {path}: refused, not plain tensors ({type(error).__name__})"
        ) from None
    if not isinstance(state, dict) or not all(torch.is_tensor(one) for one in state.values()):
        raise UserError(f"model.encoder_weights: {path}: not a dict of tensors, a state dict")
    own = encoder.state_dict()
    state = _at_this_size(encoder, state)
    found = {own_name(key, own): tensor for key, tensor in state.items()}
    for key in input_filters(encoder):
        if key in found and found[key].shape[1:2] == (3,):
            found[key] = expand_input(found[key], own[key].shape[1], init)
    missing = [
        key
        for key in own
        # Counts that BatchNorm keeps for itself; older files lack them.
        if not key.endswith("num_batches_tracked")
        and (key not in found or found[key].shape != own[key].shape)
    ]
    if missing:
        raise UserError(
            f"model.encoder_weights: {path}: no fitting tensor for {missing[0]} "
            f"({len(missing)} of {len(own)}); is it for another encoder?"
        )
    encoder.load_state_dict({key: found[key] for key in own if key in found}, strict=False)


def _at_this_size(encoder: nn.Module, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as timm itself would load them: a transformer's positions and the filters of its
    patches are resampled to the size of input and patch that it is built for.
    """
    model = getattr(encoder, "model", encoder)
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is None:  # Also where timm keeps only the features of a network.
        return state
    try:
        adapted = adapt({key.removeprefix("model."): state[key] for key in state}, model)
    except Exception:  # No two families refuse with the same: what does not fit is told below.
        return state
    return dict(adapted)


def own_name(key: str, own: Collection[str]) -> str:
    """The encoder's name of a tensor; timm's own files say stages.0.x for model.stages_0.x."""
    flat = re.sub(r"^([a-z_]+)\.(\d+)\.", r"\1_\2.", key)
    names = (key, f"model.{key}", f"model.{flat}", f"model.model.{key}")
    return next((name for name in names if name in own), key)
