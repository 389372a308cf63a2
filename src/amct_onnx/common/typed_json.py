"""A JSON file of ours, read into a schema: its size, the number of its values, its depth, types and ranges are bounded.

``msgspec`` checks types and ranges while it reads; it refuses NaN, numbers that float64 does not hold, and text that is
not UTF-8. Memory follows from MAX_BYTES and MAX_VALUES, whatever the file claims.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, TypeVar

import msgspec

MAX_BYTES = 256 << 20
MAX_VALUES = 1 << 23
"""Numbers, texts and lists of one file: 8 million scales are those of some 50 billion weights."""

Content = TypeVar("Content")


class ContentError(ValueError):
    """What a file holds is not what it must hold; the text names the field, as in ``$.layers[3].scale_w``."""


def read_bounded(path: str | os.PathLike[str], most: int = MAX_BYTES) -> bytes:
    """All bytes of a regular file; a pipe or device would block, or never end.

    Raises:
        ContentError: It is not a regular file, or it has more bytes.
        OSError: It cannot be read.
    """
    handle = os.open(Path(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ContentError("it is not a regular file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ContentError(f"it has more than {most:,} bytes")
    if content.count(b",") > MAX_VALUES:
        raise ContentError(f"it has more than {MAX_VALUES:,} values")
    return content


def decode(content: bytes, schema: type[Content]) -> Content:
    """The bytes as a value of that type.

    Raises:
        ContentError: They are not JSON, or other than the type says.
    """
    try:
        return msgspec.json.decode(content, type=schema, strict=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ContentError(_described(error)) from error


def convert(content: Any, schema: type[Content]) -> Content:
    """What ``decode`` gave without a type, as a value of that type.

    Raises:
        ContentError: It is other than the type says.
    """
    try:
        return msgspec.convert(content, type=schema, strict=True)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ContentError(_described(error)) from error


def _described(error: Exception) -> str:
    """With the place first: msgspec ends with it."""
    if isinstance(error, RecursionError):
        return "its lists are nested too deeply"
    text, mark, place = str(error).rpartition(" - at `")
    return f"{place.removesuffix('`')}: {text}" if mark else str(error)
