"""Weights on disk: a checkpoint to resume from, release weights to predict with."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from nyuseg.config import Config
from nyuseg.errors import UserError
from nyuseg.files import atomic_path, read_json, sha256_file, write_json
from nyuseg.model import build_model


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint (tensors, numbers, strings, lists and dicts of them) atomically."""
    # Through an open file: given a path, torch writes its (random) name into the archive.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; code inside it is refused, not run. Raises UserError, naming the file."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except Exception as error:  # A truncated zip, a pickle with code, a folder, ...: many types.
        raise UserError(
            f"{path}: not a checkpoint of plain tensors ({type(error).__name__}); "
            "move it away to start this fold again"
        ) from None


def release_weights(folder: Path, model_state: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write weights.safetensors and, after it, weights.json with its hash and `facts`."""
    path = folder / "weights.safetensors"
    with atomic_path(path) as temporary:
        save_file({key: tensor.contiguous() for key, tensor in model_state.items()}, temporary)
    write_json(folder / "weights.json", {**facts, "sha256": sha256_file(path)})


def load_release(folder: Path, config: Config) -> tuple[nn.Module, dict[str, Any]]:
    """Load the network of a fold's folder and the facts beside its weights.

    Raises UserError when a file is missing, its hash is not the recorded one, or the weights
    belong to another architecture.
    """
    facts, path = read_json(folder / "weights.json"), folder / "weights.safetensors"
    if not path.is_file():
        raise UserError(f"{path}: no such file; train this fold first")
    if sha256_file(path) != facts["sha256"]:
        raise UserError(f"{path}: not the file that weights.json records; copy the fold again")
    model = build_model(config, pretrained=False)
    try:
        model.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError):
        raise UserError(
            f"{path}: these weights do not fit {config.model.encoder} + {config.model.decoder} "
            f"with {config.data.channel_count} input channels; the config is another experiment's"
        ) from None
    return model, facts
