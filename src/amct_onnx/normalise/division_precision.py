"""QuantizeLinear that divides, and DequantizeLinear that gives, another float type than its scale's (opset 23)."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.edit import known_as, nodes_of
from amct_onnx.graph.model_warnings import warn
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, is_op


def tell_other_divisions(model: ir.Model) -> None:
    """Warn of each by name: AscendQuant, int8 layers and the outputs compute in the scale's type."""
    for node in nodes_of(model):
        if not is_op(node, QUANTIZE, DEQUANTIZE) or len(node.inputs) < 2 or node.inputs[1] is None:
            continue
        scale = node.inputs[1].dtype
        stated = attribute(node, "precision" if node.op_type == QUANTIZE else "output_dtype", 0)
        if not stated or scale is None or stated == int(scale):
            continue
        kind = ir.DataType(stated).name
        if node.op_type == DEQUANTIZE:
            warn(
                model,
                f"Node '{known_as(node)}' (DequantizeLinear) gives {kind} (output_dtype) of a scale in {scale.name}: a "
                f"layer behind it computes with numbers not rounded to {kind}. Export it without output_dtype.",
            )
        else:
            warn(
                model,
                f"Node '{known_as(node)}' (QuantizeLinear) divides in {kind} (precision), the outputs in {scale.name}: "
                "numbers close to a tie come out one step apart. Export it without precision.",
            )
