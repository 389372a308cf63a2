"""Switch ONNX Runtime's telemetry off: it would leave a device id and a database of events under the home folder.

onnxruntime reads the variable once, while it is imported; so this runs before any module of the package does that. A
library that was imported earlier has written its files already. All that is left then is to stop it from sending.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "ORT_DISABLE_TELEMETRY"
"""Variable that onnxruntime reads. Child processes inherit it."""


def switch_off() -> None:
    """Set the variable, unless the user has set it already, to any value."""
    if VARIABLE in os.environ:
        return
    os.environ[VARIABLE] = "1"
    imported = sys.modules.get("onnxruntime")
    disable = getattr(imported, "disable_telemetry_events", None)
    if disable is not None:
        disable()
