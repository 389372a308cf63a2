"""Array files: only regular files are opened, and an .npy is mapped. Anything wrong with one is a ValueError."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from amct_onnx.common.arrays import Array


def load_file(path: Path) -> Any:
    """The mapped array of an .npy, so that its header cannot claim memory; the archive of an .npz.

    Raises:
        ValueError: It is not a regular file, or numpy does not read it; pickled objects are never read.
    """
    if not path.is_file():  # a pipe would block
        raise ValueError("it is not a regular file")
    try:
        return np.load(path, mmap_mode="r" if path.suffix == ".npy" else None, allow_pickle=False)
    except Exception as error:  # zipfile, zlib, tokenize and numpy raise many classes on malformed files
        raise ValueError(str(error) or type(error).__name__) from error


def loaded_array(loaded: object) -> Array:
    """The same object.

    Raises:
        ValueError: An archive under the suffix of an array, or bytes in an archive.
    """
    if not isinstance(loaded, np.ndarray):
        raise ValueError("it is an archive or holds bytes, not an array")
    return loaded
