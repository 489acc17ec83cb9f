"""Checkpoints: all that resuming a fold needs."""

import io
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from nyuseg.experiment.fold_files import FoldFiles
from nyuseg.utils.errors import UserError
from nyuseg.utils.files import write_bytes

# What a checkpoint must hold to go on from.
STATE_KEYS = frozenset(
    {"model", "optimizer", "scaler", "epoch", "best", "history", "halves", "folds"}
)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint (tensors, numbers, strings, lists and dicts of them) atomically."""
    # Through memory: torch would write the temporary file's random name into the archive.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getbuffer())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; code inside it is refused, not run. Raises UserError, naming the file."""
    try:
        with warnings.catch_warnings():  # A foreign pickle makes torch warn before it refuses.
            warnings.simplefilter("ignore", UserWarning)
            return _intern_keys(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, not a checkpoint") from None
    except (OSError, MemoryError):  # The file may be sound.
        raise
    except Exception as error:  # A truncated zip, a pickle with code, a folder, ...: many types.
        raise UserError(
            f"{path}: truncated, or not a checkpoint of plain tensors ({type(error).__name__})"
        ) from None


def _intern_keys(value: Any) -> Any:
    """Give dict keys the identity that the same words in the code have.

    Pickle writes a string that it has met before, the very object, as a reference. With fresh
    copies of the keys a resumed run would write the same content in other bytes.
    """
    if type(value) is dict:
        return {
            sys.intern(key) if type(key) is str else key: _intern_keys(one)
            for key, one in value.items()
        }
    return [_intern_keys(one) for one in value] if type(value) is list else value


def save_latest(files: FoldFiles, state: dict[str, Any]) -> None:
    """Write the last checkpoint; what was it becomes the previous. One of them is always whole."""
    if files.last.exists():
        files.last.replace(files.previous)
    save_checkpoint(files.last, state)


def load_latest(files: FoldFiles, table_hash: str) -> dict[str, Any] | None:
    """The newest checkpoint of a fold that can be used; None when there is no checkpoint.

    When the last one cannot be used it is named, the previous one is taken and the last moved
    aside, so that save_latest does not put it in the place of the good one. Raises UserError when
    none can be used, or it belongs to another fold table.
    """
    broken: list[UserError] = []
    for path in (path for path in (files.last, files.previous) if path.exists()):
        try:
            state = _load_state(path)
        except UserError as error:
            broken.append(error)
            continue
        if state["folds"] != table_hash:
            raise UserError(f"{path}: trained on another fold table; use --fresh")
        if broken:
            aside = files.last.replace(files.broken)
            print(f"warning: {broken[0]}; moved to {aside.name}, going on from {path.name}")
        return state
    if broken:
        raise UserError(f"{broken[0]}; no checkpoint can be used, --fresh begins anew")
    return None


def _load_state(path: Path) -> dict[str, Any]:
    state = load_checkpoint(path)
    if not (isinstance(state, dict) and set(state) >= STATE_KEYS):
        raise UserError(f"{path}: not the checkpoint of a fold")
    return state
