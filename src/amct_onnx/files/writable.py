"""Check before hours of work whether a file can be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from amct_onnx.errors import OutputError

BLOCK = bytes(4096)
"""Bytes that are written to try: a disk without this much space counts as full."""


def check_writable(target: Path) -> None:
    """Make a nameless file in the target's folder, or in the nearest parent that exists.

    Raises:
        OutputError: This fails.
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
