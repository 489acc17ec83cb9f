"""Release weights: what predicts, its hash and the facts beside it."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import nn

from nyuseg.config.sections import Data, Model
from nyuseg.models.network import load_network
from nyuseg.models.tensors import read_tensors
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import read_json, sha256_file, write_bytes, write_json

WEIGHTS = "weights.safetensors"
# What must stand beside them.
RELEASE_KEYS = ("fold", "folds", "epoch", "valid_ids", "best", "last", "environment", "sha256")


def release_weights(folder: Path, model_state: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write the weights and, after it, weights.json with its hash and `facts`."""
    path = folder / WEIGHTS
    # Copies: a file holds no tensor under two names, as some encoders do.
    plain = {
        key: tensor.clone(memory_format=torch.contiguous_format)
        for key, tensor in model_state.items()
    }
    write_bytes(path, save(plain))
    write_json(folder / "weights.json", {**facts, "sha256": sha256_file(path)})


def load_release(folder: Path, options: Model, data: Data) -> tuple[nn.Module, dict[str, Any]]:
    """Load the network of a fold's folder and the facts beside its weights.

    Raises UserError when a file is missing, its hash is not the recorded one, or the weights
    belong to another architecture.
    """
    facts = check_release(folder)
    return open_release(folder, options, data), facts


def check_release(folder: Path) -> dict[str, Any]:
    """The facts beside a fold's weights, compared with the file: see load_release for errors."""
    facts = read_json(folder / "weights.json", RELEASE_KEYS)
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"{path}: no such file; train this fold first")
    if sha256_file(path) != facts["sha256"]:
        raise UserError(f"{path}: not the file that weights.json records; copy the fold again")
    return facts


def open_release(folder: Path, options: Model, data: Data) -> nn.Module:
    """The network of a fold's folder that has been checked: see load_release for errors."""
    path = folder / WEIGHTS
    try:
        return load_network(options, data, read_tensors(path))
    except (RuntimeError, SafetensorError):
        raise UserError(
            f"{path}: these weights do not fit {options.encoder} + {options.decoder} "
            f"with {data.channel_count} input channels; the config is another experiment's"
        ) from None
