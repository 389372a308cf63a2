"""AMCT_SO: ONNX Runtime session options under which Q/DQ and fake-quant models give their true numbers."""

from __future__ import annotations

import onnxruntime as ort

AMCT_SO = ort.SessionOptions()
AMCT_SO.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
AMCT_SO.add_session_config_entry("session.disable_quant_qdq", "1")
