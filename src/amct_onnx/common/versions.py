"""What decides figures beside the models: versions of the libraries, Python, the machine."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata, resources
from typing import Any

LIBRARIES = ("amct_onnx", "numpy", "onnx", "onnx-ir", "onnxruntime")
DECIDING = ("amct_onnx", "numpy", "onnx", "onnxruntime")
"""Those whose version may change figures."""
CODE = "code of amct_onnx"


def library_versions() -> dict[str, str]:
    """Name -> version, with Python and the machine."""
    return {
        **{name: _version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {platform.system()}",
    }


@lru_cache(maxsize=1)
def deciding_versions() -> dict[str, str]:
    """Name -> version of ``DECIDING``, and a digest of this package's source: two checkouts may share a version."""
    digest = hashlib.blake2b(digest_size=8)
    for name, content in _sources(resources.files("amct_onnx"), ""):
        digest.update(f"{name} {len(content)} ".encode() + content)
    return {**{name: _version(name) for name in DECIDING}, CODE: digest.hexdigest()}


def _sources(folder: Any, path: str) -> Iterator[tuple[str, bytes]]:
    """Every source file below a folder of a package, in the order of their paths."""
    for entry in sorted(folder.iterdir(), key=lambda e: str(e.name)):
        name = f"{path}/{entry.name}"
        if entry.is_dir():
            yield from _sources(entry, name)
        elif entry.name.endswith(".py"):
            yield name, entry.read_bytes()


def _version(library: str) -> str:
    if library == "amct_onnx":  # of the code that runs, whatever is installed beside it
        from amct_onnx import __version__

        return __version__
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "unknown"
