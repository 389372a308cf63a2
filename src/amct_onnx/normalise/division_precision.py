"""QuantizeLinear nodes of opset 23 and newer that divide in another float type than their scale's."""

from __future__ import annotations

import onnx_ir as ir

from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.edit import known_as, nodes_of
from amct_onnx.graph.model_warnings import warn
from amct_onnx.graph.quantizer_nodes import QUANTIZE, is_op


def tell_other_divisions(model: ir.Model) -> None:
    """Warn of each by name: AscendQuant and the outputs divide in the scale's type."""
    for node in nodes_of(model):
        precision = attribute(node, "precision", 0) if is_op(node, QUANTIZE) else 0
        scale = node.inputs[1].dtype if precision and len(node.inputs) > 1 and node.inputs[1] is not None else None
        if precision and scale is not None and precision != int(scale):
            kind = ir.DataType(precision).name
            warn(
                model,
                f"Node '{known_as(node)}' (QuantizeLinear) divides in {kind} (precision), the outputs in {scale.name}: "
                "numbers close to a tie come out one step apart. Export it without precision.",
            )
