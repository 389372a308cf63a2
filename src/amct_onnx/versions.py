"""What decides figures beside the models: versions of the libraries, Python, the machine."""

from __future__ import annotations

import platform
from importlib import metadata

LIBRARIES = ("amct_onnx", "numpy", "onnx", "onnx-ir", "onnxruntime")
DECIDING = ("amct_onnx", "numpy", "onnx", "onnxruntime")
"""Those whose version may change figures."""


def library_versions() -> dict[str, str]:
    """Name -> version, with Python and the machine."""
    return {
        **{name: _version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
    }


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:  # run from a checkout
        from amct_onnx import __version__

        return __version__ if library == "amct_onnx" else "unknown"
