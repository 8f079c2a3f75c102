"""Arrays on disk: .npy files of float32, checked before anything is allocated."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from structural_kd.files import whole

CHUNK = 2**18
"""Values of an array that are checked at once."""


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Writes an array as .npy, whole or not at all."""
    with whole(path) as part, part.open("wb") as file:
        np.save(file, np.asarray(array, order="C"), allow_pickle=False)


def read_array(path: Path, *, mmap: bool = True) -> NDArray[np.float32]:
    """Reads a float32 .npy as `write_array` writes it; with `mmap` it stays on disk.

    Raises:
        ValueError: it is something else, or a value is not finite. Nothing is allocated before the size that
            the header promises was compared with the file's.
    """
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        except Exception as error:  # numpy lets classes of Python's own parser through
            raise ValueError(f"{path}: not a .npy file: {error!r}") from error
        start, end = file.tell(), os.fstat(file.fileno()).st_size
        if dtype != np.float32 or dtype.hasobject:
            raise ValueError(f"{path}: expected float32, found {dtype}")
        if version != (1, 0) or fortran:
            raise ValueError(f"{path}: expected version 1.0 and C order")
        if any(not 0 <= size < 2**31 for size in shape) or end - start != 4 * math.prod(shape):
            raise ValueError(f"{path}: {end - start} bytes after the header, which says {shape} of float32")
        for _ in range(start, end, 4 * CHUNK):
            if not np.isfinite(np.fromfile(file, np.float32, CHUNK)).all():
                raise ValueError(f"{path}: a value is not finite")
        if not mmap:
            file.seek(start)
            return np.fromfile(file, np.float32).reshape(shape)
        return np.memmap(file, np.float32, "r", start, shape)
