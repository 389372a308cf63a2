"""AMCT_SO: ONNX Runtime session options under which Q/DQ and fake-quant models give their true numbers."""

from __future__ import annotations

import onnxruntime as ort

AMCT_SO = ort.SessionOptions()
AMCT_SO.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
# nodes run in the order of the graph; by default all int8 weights of a fake-quant model would be cast to float32 first
AMCT_SO.execution_order = ort.ExecutionOrder.PRIORITY_BASED
AMCT_SO.add_session_config_entry("session.disable_quant_qdq", "1")
