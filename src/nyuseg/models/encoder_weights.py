"""Weights of an encoder: a local file, RGB filters for more channels, a failed download."""

import re
from collections.abc import Collection
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
from nyuseg.utils.errors import UserError
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


def input_convolution(encoder: nn.Module) -> nn.Conv2d:
    """The convolution over the input channels."""
    return next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))


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
        raise UserError(f"model.encoder_weights: {path}: {_first_line(error)}") from None
    except Exception as error:  # pickle.UnpicklingError: anything but plain tensors is refused.
        raise UserError(
            f"model.encoder_weights: {path}: refused, not plain tensors ({type(error).__name__})"
        ) from None
    if not isinstance(state, dict) or not all(torch.is_tensor(one) for one in state.values()):
        raise UserError(f"model.encoder_weights: {path}: not a dict of tensors, a state dict")
    own = encoder.state_dict()
    first = input_convolution(encoder).weight
    found = {_own_name(key, own): tensor for key, tensor in state.items()}
    for key, tensor in found.items():
        if key in own and own[key].shape == first.shape and tensor.shape[1:2] == (3,):
            found[key] = expand_input(tensor, first.shape[1], init)
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


def _own_name(key: str, own: Collection[str]) -> str:
    """The encoder's name of a tensor; timm's own files say stages.0.x for model.stages_0.x."""
    flat = re.sub(r"^([a-z_]+)\.(\d+)\.", r"\1_\2.", key)
    names = (key, f"model.{key}", f"model.{flat}")
    return next((name for name in names if name in own), key)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
