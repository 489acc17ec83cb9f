"""Release weights: what predicts, its hash and the facts beside it."""

from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import nn

from nyuseg.config.sections import Data, Model
from nyuseg.experiment.fold_files import FoldFiles
from nyuseg.experiment.records import WeightsRecord
from nyuseg.models.auxiliary_head import PREFIX
from nyuseg.models.balance import add_offsets
from nyuseg.models.network import load_network
from nyuseg.models.tensors import read_tensors
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import sha256_file, write_bytes


def release_weights(
    files: FoldFiles,
    model_state: dict[str, Any],
    facts: dict[str, Any],
    offsets: torch.Tensor | None = None,
) -> None:
    """Write the weights of a fold and, after them, their record.

    facts: what the WeightsRecord holds besides their hash. offsets: see balance.class_offsets.
    """
    if offsets is not None:
        model_state = add_offsets(model_state, offsets)
    # Copies: a file holds no tensor under two names, as some encoders do. What predicts needs no
    # auxiliary head.
    plain = {
        key: tensor.clone(memory_format=torch.contiguous_format)
        for key, tensor in model_state.items()
        if not key.startswith(PREFIX)
    }
    write_bytes(files.weights, save(plain))
    WeightsRecord(**facts, sha256=sha256_file(files.weights)).write(files.weights_record)


def load_release(files: FoldFiles, options: Model, data: Data) -> tuple[nn.Module, WeightsRecord]:
    """Load the network of a fold and the record beside its weights.

    Raises UserError when a file is missing, its hash is not the recorded one, or the weights
    belong to another architecture.
    """
    record = check_release(files)
    return open_release(files, options, data), record


def check_release(files: FoldFiles) -> WeightsRecord:
    """The record of a fold's weights, compared with them: see load_release for errors."""
    record = WeightsRecord.read(files.weights_record)
    if not files.weights.is_file():
        raise UserError(f"{files.weights}: no such file; train this fold first")
    if sha256_file(files.weights) != record.sha256:
        raise UserError(
            f"{files.weights}: not the file that {files.weights_record.name} records; copy the "
            "fold again"
        )
    return record


def open_release(files: FoldFiles, options: Model, data: Data) -> nn.Module:
    """The network of a fold that has been checked: see load_release for errors."""
    try:
        return load_network(options, data, read_tensors(files.weights))
    except (RuntimeError, SafetensorError):
        raise UserError(
            f"{files.weights}: these weights do not fit {options.encoder} + {options.decoder} "
            f"with {data.channel_count} input channels; the config is another experiment's"
        ) from None
