"""The ONNX Runtime settings that the doctor tries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnxruntime as ort

from amct_onnx.common.onnxruntime_session import KEEP_QDQ, PINNED_ENTRIES, PINNED_LEVEL, session_options

Level = Literal["off", "basic", "extended", "all"]
LEVELS: dict[Level, ort.GraphOptimizationLevel] = {
    "off": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


@dataclass(frozen=True)
class Setting:
    """One way to open a session.

    Attributes:
        name: what users call it.
        level: a key of ``LEVELS``.
        entries: session config entries.
        why: what this setting changes.
    """

    name: str
    level: Level
    entries: tuple[tuple[str, str], ...]
    why: str

    def options(self) -> ort.SessionOptions:
        """The session options of this setting."""
        return session_options(LEVELS[self.level], dict(self.entries))  # a session that is refused shows in the table


def _setting(name: str, level: Level, entries: dict[str, str], why: str) -> Setting:
    return Setting(name, level, tuple(entries.items()), why)


PINNED = _setting(
    "as written (AMCT_SO)",
    next(k for k, v in LEVELS.items() if v == PINNED_LEVEL),
    {**KEEP_QDQ, **PINNED_ENTRIES},
    "each node as the model says, in float32; what this package uses for every reference",
)
SETTINGS = (
    _setting("default", "all", {}, "what a session without options does: fuses Q/DQ into int8 operators"),
    _setting("extended", "extended", {}, "fuses Q/DQ into int8 operators, no changes of memory layout"),
    _setting("basic", "basic", {}, "folds constants and removes nodes; Q/DQ stay"),
    _setting("off", "off", {}, "optimisations off"),
    _setting("default, Q/DQ kept", "all", KEEP_QDQ, "no int8 operators, but scales may be folded into weights"),
    _setting(
        "default, s8 kept",
        "all",
        {"session.qdqisint8allowed": "1"},
        "int8 activations stay int8 instead of becoming uint8 (u8s8 models are run as they are)",
    ),
    _setting(
        "default, precise on x64",
        "all",
        {"session.x64quantprecision": "1"},
        "u8s8 products through the slower u8u8 kernels, which do not saturate",
    ),
    PINNED,
)
"""All settings, in the order of the table."""
