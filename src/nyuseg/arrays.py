"""NumPy files written one entry at a time, so that memory does not grow with their length."""

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from nyuseg.errors import UserError


class ArrayFile(AbstractContextManager):
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
        self.file.write(np.ascontiguousarray(entry, self.dtype))

    def __exit__(self, *exception: object) -> None:
        self.file.close()
