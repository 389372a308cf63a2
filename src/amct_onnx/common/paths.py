"""Paths that a caller gives in Python: a value of another kind is said by its name."""

from __future__ import annotations

import os

from amct_onnx.errors import SettingError


def check_paths(*optional: str, **given: object) -> None:
    """Refuse what is not a path.

    Args:
        optional: names of parameters that may be None.
        given: value by name of the parameter.

    Raises:
        SettingError: A value is neither a str nor an os.PathLike of one.
    """
    for name, value in given.items():
        path = os.fspath(value) if isinstance(value, os.PathLike) else value
        if isinstance(path, str) or (value is None and name in optional):
            continue
        kind = type(value).__name__
        article = "an" if kind[:1].lower() in "aeiou" else "a"
        held = "None" if value is None else f"{article} {kind}"
        if kind in ("ModelProto", "Model"):
            raise SettingError(f"{name} is {held}, which is not taken here. Save it, and give its path.")
        raise SettingError(f"{name} is {held}. Give a path, as str or pathlib.Path.")
