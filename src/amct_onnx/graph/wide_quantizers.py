"""QuantizeLinear and DequantizeLinear of 16 bits, in the domain where ONNX Runtime has them at every opset."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.edit import nodes_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, is_op

WIDE_SINCE = 21
"""Opset from which on ONNX's own operators take 16 bits."""
MICROSOFT = "com.microsoft"
WIDE = (ir.DataType.INT16, ir.DataType.UINT16)


def name_wide_quantizers(model: ir.Model) -> None:
    """Below opset 21, move both operators of 16 bits to ONNX Runtime's domain, in place; they mean the same there."""
    if opset_of(model) >= WIDE_SINCE:
        return
    for node in nodes_of(model):
        if is_op(node, QUANTIZE, DEQUANTIZE) and any(v is not None and v.dtype in WIDE for v in node.inputs):
            node.domain = MICROSOFT
            model.opset_imports.setdefault(MICROSOFT, 1)
