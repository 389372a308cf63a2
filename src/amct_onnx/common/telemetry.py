"""Switch ONNX Runtime's telemetry off: it would leave a device id and a database of events under the home folder.

onnxruntime reads the variable once, while it is imported; so this runs before any module of the package does that. A
library that was imported earlier has written its files already and can only be told to send nothing more.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "ORT_DISABLE_TELEMETRY"
"""Of onnxruntime; the processes that this one starts inherit it."""


def switch_off() -> None:
    """Unless the user has set the variable, to whatever value."""
    if VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = "1"
    imported = sys.modules.get("onnxruntime")
    disable = getattr(imported, "disable_telemetry_events", None)
    if disable is not None:
        disable()
