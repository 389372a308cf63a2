"""Q and DQ of opset 21 and newer in the form of opset 18, to which the rest of the normalised model belongs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from amct_onnx.emit.float_quantizer import float_chain
from amct_onnx.emit.output_graph import OutputGraph
from amct_onnx.graph.attributes import attribute
from amct_onnx.graph.constants import ConstantEvaluator
from amct_onnx.graph.edit import GraphEditor, nodes_of
from amct_onnx.graph.opset import opset_of
from amct_onnx.graph.quantizer_nodes import DEQUANTIZE, QUANTIZE, integer_type, is_op
from amct_onnx.graph.unused_nodes import remove_unused_nodes
from amct_onnx.plan.quantizers import quantizer_of

NEWER = ("output_dtype", "precision", "saturate", "block_size")
TYPES = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32)
"""What DequantizeLinear of opset 18 takes: a constant of another type becomes floats, a pair float operators."""


def write_plain_quantizers(model: ir.Model) -> ir.Model:
    """Return the model without types, blocks and attributes that opset 18 has not; their numbers stay the same.

    Raises:
        AmctError: A pair whose factors are not usable, or of blocks along an axis of unknown length.
    """
    model = _without_newer_pairs(model)
    editor, constants = GraphEditor(model), ConstantEvaluator(opset_of(model))
    for node in nodes_of(model):
        if not is_op(node, QUANTIZE, DEQUANTIZE):
            continue
        output = node.outputs[0]
        if node.op_type == DEQUANTIZE and constants.is_constant(output):
            if _is_blocked(node) or integer_type(node, constants) not in TYPES:
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
            if name in node.attributes and not _is_blocked(node):
                del node.attributes[name]
    return model


def _without_newer_pairs(model: ir.Model) -> ir.Model:
    """The model with each pair of a newer type or of blocks as float operators."""
    graph = OutputGraph(model)
    constants = ConstantEvaluator(opset_of(graph.model))
    for node in nodes_of(graph.model):
        output = node.outputs[0]
        if not is_op(node, DEQUANTIZE) or constants.is_constant(output):
            continue
        if not _is_blocked(node) and integer_type(node, constants) in TYPES:
            continue
        pair = quantizer_of(node, constants)
        if pair is not None:
            source, quantizer = pair
            chain = float_chain(graph, graph.current(source), quantizer, f"{node.name}/float", node)
            graph.replace(output, chain)
    remove_unused_nodes(graph.model)
    return graph.model


def _is_blocked(node: ir.Node) -> bool:
    return attribute(node, "block_size", 0) > 0
