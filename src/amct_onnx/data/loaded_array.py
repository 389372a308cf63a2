"""What numpy.load hands out, when it is an array."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def loaded_array(loaded: object) -> npt.NDArray[Any]:
    """The same object.

    Raises:
        ValueError: An archive under the suffix of an array, or bytes in an archive.
    """
    if not isinstance(loaded, np.ndarray):
        raise ValueError("it is an archive or holds bytes, not an array")
    return loaded
