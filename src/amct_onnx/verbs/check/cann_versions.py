"""The compiler versions that rules tell apart."""

from __future__ import annotations

from typing import Literal, get_args

from amct_onnx.errors import SettingError

MASTER = "master"
"""The open repositories of CANN as of 2026-08-22."""
CannVersion = Literal["8.5", "9.0", "9.1", "master"]
CANN_VERSIONS: tuple[str, ...] = get_args(CannVersion)
RELEASES = CANN_VERSIONS[:-1]


def versions_of(cann: str | None) -> tuple[str, ...]:
    """The versions to check for: the one asked for, or all.

    Raises:
        SettingError: Unknown version.
    """
    if cann is None:
        return CANN_VERSIONS
    if cann not in CANN_VERSIONS:
        raise SettingError(f"Unknown CANN version '{cann}'. Use one of {', '.join(CANN_VERSIONS)}, or leave it out.")
    return (cann,)
