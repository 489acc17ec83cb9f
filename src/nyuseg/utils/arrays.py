"""NumPy files: long ones written and read one entry at a time, so that memory does not grow."""

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from nyuseg.utils.errors import UserError
from nyuseg.utils.files import write_bytes


class ArrayFile(AbstractContextManager["ArrayFile"]):
    """An .npy file of `count` entries of one shape, to be used as a context.

    Written in sequence: on a full disk a memory map would kill the process.
    """

    def __init__(self, path: Path, count: int, dtype: np.dtype | type) -> None:
        self.file, self.path, self.count, self.dtype = path.open("wb"), path, count, np.dtype(dtype)
        self.shape: tuple[int, ...] | None = None

    def add(self, name: str, entry: np.ndarray) -> None:
        """Append an entry. Raises UserError, naming it, for another shape than the first one's."""
        if self.shape is None:
            self.shape = entry.shape
            header = {
                "descr": np.lib.format.dtype_to_descr(self.dtype),
                "fortran_order": False,
                "shape": (self.count, *self.shape),
            }
            np.lib.format.write_array_header_1_0(self.file, header)
        if entry.shape != self.shape:
            height, width = entry.shape[-2:]
            raise UserError(
                f"image {name} is {height}x{width}, the first one {self.shape[-2]}x"
                f"{self.shape[-1]}: {self.path.name} needs one size; use --format rle,png"
            )
        self.file.write(np.ascontiguousarray(entry, self.dtype).data)

    def __exit__(self, *exception: object) -> None:
        self.file.close()


def map_array(path: Path) -> np.ndarray:
    """An .npy file as a read-only memory map. Raises UserError, naming it, for another file."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: not a NumPy array ({error}); restore or rewrite it") from None
    if not isinstance(array, np.ndarray) or not array.ndim:
        raise UserError(f"{path}: not a NumPy array of several entries")
    return array


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """Write named arrays as a compressed .npz file, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getbuffer())


def read_entries(path: Path) -> Iterator[np.ndarray]:
    """The entries of an .npy file, one after another.

    Each is mapped on its own: of a map of the whole file, every page that was read once would
    count as this process's memory. Raises UserError as map_array does.
    """
    for index in range(len(map_array(path))):
        yield np.array(map_array(path)[index])
