"""Q and DQ of opset 21 and newer in the form of opset 18, to which the rest of the normalised model belongs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, integer_type, is_op

NEWER = ("output_dtype", "precision", "saturate", "block_size")
TYPES = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32)
"""What DequantizeLinear of opset 18 takes; a constant of another type becomes floats."""


def write_plain_quantizers(model: ir.Model) -> None:
    """Rewrite the graph in place; what opset 18 cannot say stays, and ONNX Runtime refuses it by name."""
    editor, constants = GraphEditor(model), ConstantEvaluator(opset_of(model))
    for node in nodes_of(model):
        if not is_op(node, QUANTIZE, DEQUANTIZE):
            continue
        blocked = "block_size" in node.attributes and node.attributes["block_size"].as_int() > 0
        output = node.outputs[0]
        if node.op_type == DEQUANTIZE and constants.is_constant(output):
            if blocked or integer_type(node, constants) not in TYPES:
                floats = editor.constant(f"{output.name}/floats", constants.array(output))
                editor.replace(node, [editor.node("Identity", [floats], node)])
                continue
        scale = node.inputs[1]
        if node.op_type == QUANTIZE and (len(node.inputs) < 3 or node.inputs[2] is None) and scale is not None:
            shape = constants.array(scale).shape if constants.is_constant(scale) else ()
            zero = np.zeros(shape, integer_type(node, constants).numpy())
            node.resize_inputs(3)
            node.replace_input_with(2, editor.constant(f"{node.name}/zero_point", zero))
        for name in NEWER:
            if name in node.attributes and not blocked:
                del node.attributes[name]
