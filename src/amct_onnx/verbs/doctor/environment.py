"""What a bug report needs to know of the machine: versions, the CPU, and where the package comes from."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import amct_onnx
from amct_onnx.common.cpu_count import cpu_count
from amct_onnx.common.versions import library_versions
from amct_onnx.verbs.doctor.cpu import cpu_facts

MORE = ("protobuf", "rich", "distributed")
"""Libraries that change no figures, but may be why something fails."""


def environment() -> dict[str, str]:
    """Name -> value, in the order in which a reader wants them; no path of a user beside the package's own."""
    cpu = cpu_facts()
    found = library_versions()
    for name in MORE:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["cpu"] = f"{cpu.model or cpu.machine} ({', '.join(cpu.flags) or 'no int8 instructions known'})"
    found["cpus of this process"] = str(cpu_count())
    found["system"] = platform.platform()
    found["package"] = str(Path(amct_onnx.__file__).parent)
    return found
