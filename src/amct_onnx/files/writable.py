"""Whether a file can be written, asked before hours of work rather than behind them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from amct_onnx.errors import OutputError

BLOCK = bytes(4096)
"""A disk without this much space is full."""


def check_writable(target: Path) -> None:
    """Make a file without a name in the target's folder, or in the nearest one that exists.

    Raises:
        OutputError: That fails.
    """
    folder = target.parent
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(BLOCK)
            file.flush()
    except OSError as error:
        raise OutputError(
            f"{target}: cannot be written ({error.strerror or error}). Choose a writable place with enough space."
        ) from error
