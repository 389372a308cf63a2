"""How ONNX Runtime sessions are opened: on the CPU, with the options that change results pinned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime as ort

CPU = "CPUExecutionProvider"
PINNED_LEVEL = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
"""Higher levels fold the dequantization's Mul into the weights of the Conv before it, which rounds."""
PINNED_ENTRIES = {
    # subnormal numbers count
    "session.set_denormal_as_zero": "0",
    # float32 must stay float32 on ARM
    "mlas.enable_gemm_fastmath_arm64_bfloat16": "0",
}
"""Session config entries that change results at ``PINNED_LEVEL``, and the value under which they are exact.

It is onnxruntime's default: an entry that nobody set stays unset."""
KEEP_QDQ = {"session.disable_quant_qdq": "1"}
"""Q/DQ pairs are computed as written, not fused into int8 operators."""
GRAPH_ORDER = ort.ExecutionOrder.PRIORITY_BASED
"""Nodes run in the order of the graph. By default counts would run last, and keep every tensor until then; all int8
weights of a fake-quant model would be cast to float32 first."""
FATAL = 4
"""Severity from which on ONNX Runtime prints on stderr: its errors are raised, and told once."""


def session_options(
    level: ort.GraphOptimizationLevel = PINNED_LEVEL,
    entries: Mapping[str, str] | None = None,
    *,
    threads: int = 0,
) -> ort.SessionOptions:
    """Options of a session.

    Args:
        level: of optimisation.
        entries: session config entries.
        threads: that one operator uses; 0 for ONNX Runtime's choice.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = threads
    options.log_severity_level = FATAL
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    return options


def open_session(
    model: str | bytes, options: ort.SessionOptions, cpu_options: Mapping[str, Any] | None = None
) -> ort.InferenceSession:
    """A session on the CPU.

    Args:
        model: path or content.
        options: of the session.
        cpu_options: of the execution provider.

    Raises:
        Exception: ONNX Runtime refuses the model; its classes share no base of their own.
    """
    return ort.InferenceSession(model, options, providers=[(CPU, dict(cpu_options or {}))])


class SessionOptions(ort.SessionOptions):  # type: ignore[misc]  # onnxruntime has no types
    """onnxruntime's, under a name that type checkers know."""

    graph_optimization_level: ort.GraphOptimizationLevel
    execution_order: ort.ExecutionOrder
    intra_op_num_threads: int
    inter_op_num_threads: int
    log_severity_level: int


AMCT_SO = SessionOptions()
"""Session options under which Q/DQ and fake-quant models give their true numbers."""
AMCT_SO.graph_optimization_level = PINNED_LEVEL
AMCT_SO.execution_order = GRAPH_ORDER
for _key, _value in KEEP_QDQ.items():
    AMCT_SO.add_session_config_entry(_key, _value)
