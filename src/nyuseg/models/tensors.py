"""Files of plain tensors, wherever they lie."""

import math
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load, load_file


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file. Raises OSError or safetensors.SafetensorError when it cannot."""
    return load_file(path) if _is_utf8(path) else load(path.read_bytes())


def tensor_sizes(path: Path) -> dict[str, int]:
    """How many numbers each tensor of a safetensors file holds. Raises as read_tensors does."""
    if not _is_utf8(path):
        return {name: tensor.numel() for name, tensor in read_tensors(path).items()}
    with safe_open(path, "np") as file:  # The header alone.
        names = file.keys()
        return {name: math.prod(file.get_slice(name).get_shape()) for name in names}


def _is_utf8(path: Path) -> bool:
    """Whether the library, which takes paths as UTF-8, can open it by its name."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
