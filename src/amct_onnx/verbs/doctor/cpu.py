"""The CPU's instructions that decide how ONNX Runtime multiplies int8 numbers."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

INT8_FLAGS = ("AVX2", "AVX512F", "AVX512VNNI", "AVX_VNNI", "AMX_INT8", "ASIMDDP", "I8MM")
"""Instruction sets that ONNX Runtime's int8 kernels ask for."""
WITHOUT_SATURATION = ("AVX512VNNI", "AVX_VNNI", "AMX_INT8")
"""x86 instructions that add u8 x s8 products in 32 bits. Without them pairs of products are added in 16 bits."""
X86 = ("x86_64", "amd64", "i386", "i686", "x86")
ASK_THE_KERNEL = {"AVX_VNNI": ("avx_vnni",), "AMX_INT8": ("amx_int8",), "I8MM": ("i8mm",)}
"""Flags that numpy does not detect, as /proc/cpuinfo spells them."""
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class CpuFacts:
    """The CPU that runs this process.

    Attributes:
        machine: architecture, as ``platform.machine``.
        model: its name, "" when the system does not tell.
        flags: those of ``INT8_FLAGS`` that it has.
        saturates: whether u8s8 kernels add pairs of products in 16 bits, which saturate; None when the flags are not
            known.
    """

    machine: str
    model: str
    flags: tuple[str, ...]
    saturates: bool | None


def cpu_facts() -> CpuFacts:
    """Ask numpy, which asks the CPU itself, and the kernel for what numpy does not know."""
    machine = platform.machine()
    detected = _numpy_flags()
    text = _cpuinfo()
    words = set(text.lower().split())
    flags = tuple(f for f in INT8_FLAGS if detected.get(f) or words.intersection(ASK_THE_KERNEL.get(f, ())))
    saturates: bool | None = False
    if machine.lower() in X86:
        saturates = None if not detected and not words else not set(flags) & set(WITHOUT_SATURATION)
    return CpuFacts(machine, _model_name(text), flags, saturates)


def _numpy_flags() -> dict[str, bool]:
    for home in ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath"):  # numpy 2, numpy 1
        try:
            features: dict[str, bool] = import_module(home).__cpu_features__
        except (ImportError, AttributeError):
            continue
        return features
    return {}


def _cpuinfo() -> str:
    try:
        return _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""


def _model_name(text: str) -> str:
    for line in text.splitlines():
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
